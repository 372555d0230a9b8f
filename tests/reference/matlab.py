"""MATLAB's resizing and colours, by which the super-resolution literature makes and scores its images."""

from __future__ import annotations

import math

import numpy as np

# rgb2ycbcr of ITU-R BT.601 in studio range, for channels in [0, 1]
TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
OFFSET = np.array([16.0, 128.0, 128.0])


def imresize(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Bicubic resizing (Keys, a = -0.5), with the kernel widened when it reduces; mirrored at the border.

    Args:
        pixels: (H, W) or (H, W, C), float; not clipped, so the result may overshoot its range.
        scale: factor; the sides become ceil(side * scale).

    Returns:
        float64.
    """
    result = np.asarray(pixels, np.float64)
    for axis in (0, 1):
        weights = _weights(result.shape[axis], scale)  # (side out, side in)
        result = np.moveaxis(np.tensordot(weights, result, (1, axis)), 0, axis)
    return result


def rgb_to_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) to Y, Cb, Cr in the range of the input: uint8 is rounded to uint8, float in [0, 1] stays float."""
    if pixels.dtype == np.uint8:
        return np.rint(pixels / 255 @ TO_YCBCR.T + OFFSET).astype(np.uint8)
    return (pixels @ TO_YCBCR.T + OFFSET) / 255


def _weights(length: int, scale: float) -> np.ndarray:
    """Share of each pixel in each pixel of the result, (length out, length in)."""
    stretch = min(scale, 1.0)  # below 1 the kernel is widened, which is what keeps patterns from aliasing
    out = math.ceil(length * scale)
    centre = (np.arange(out) + 0.5) / scale - 0.5
    taps = math.ceil(4 / stretch) + 2
    places = np.floor(centre - 2 / stretch).astype(int)[:, None] + np.arange(taps)  # (out, taps)
    shares = _cubic((centre[:, None] - places) * stretch)
    shares /= shares.sum(1, keepdims=True)
    mirrored = places % (2 * length)
    mirrored = np.minimum(mirrored, 2 * length - 1 - mirrored)
    weights = np.zeros((out, length))
    np.add.at(weights, (np.arange(out)[:, None], mirrored), shares)
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
