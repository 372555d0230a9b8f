"""Structural similarity over five scales."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from retinashift.evaluation.metrics import SSIM_WINDOW, check_pair, luma_studio

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = SSIM_WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Shortest side in pixels that holds a window at the coarsest scale."""
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim_y(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Multi-scale structural similarity of the luma of `luma_studio`.

    Contrast and structure at five scales, each half of the one before by the mean of 2x2 pixels, and luminance at the
    coarsest; windows that reach beyond the frame are left out; a negative mean counts as 0. At every scale the mean is
    over the mask, a coarse pixel being in it if all four finer ones are.

    Args:
        sr, hr: (H, W, 3) or (H, W), uint8, both sides at least 176.
        mask: (H, W) bool, or None for the whole frame.

    Returns:
        0 to 1.

    Raises:
        ValueError: shapes or dtypes as for `psnr_rgb`; a side below 176; a mask that is empty at a coarse scale.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 2003.
    """
    check_pair(sr, hr, mask)
    if min(sr.shape[:2]) < SMALLEST:
        raise ValueError(f"pictures are {sr.shape[1]}x{sr.shape[0]}; MS-SSIM needs at least {SMALLEST}x{SMALLEST}")
    x, y = luma_studio(sr), luma_studio(hr)
    inside: np.ndarray = np.ones(x.shape, bool) if mask is None else mask
    product = 1.0
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y, inside = _halve(x).mean((1, 3)), _halve(y).mean((1, 3)), _halve_mask(inside)
        similarity, contrast = _ssim_maps(x, y)
        counted = _counted(inside)
        if not counted.any():
            raise ValueError(f"the field of view is too small for scale {scale + 1} of MS-SSIM")
        chosen = similarity if scale == len(WEIGHTS) - 1 else contrast
        product *= max(0.0, float(chosen[counted].mean())) ** weight
    return product


def fits(mask: np.ndarray) -> bool:
    """Whether a mask, (H, W) bool with both sides at least 176, holds a window at every scale."""
    for _ in WEIGHTS[1:]:
        if not _counted(mask).any():
            return False
        mask = _halve_mask(mask)
    return bool(_counted(mask).any())


def _counted(mask: np.ndarray) -> np.ndarray:
    reach = SSIM_WINDOW // 2
    return mask[reach:-reach, reach:-reach]


def _halve_mask(mask: np.ndarray) -> np.ndarray:
    return np.all(_halve(mask), axis=(1, 3))


def _ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure term where the 11x11 window fits: (H - 10, W - 10) each."""
    mx, my = _blur(x), _blur(y)
    covariance = _blur(x * y) - mx * my
    variances = _blur(x * x) - mx**2 + _blur(y * y) - my**2
    contrast = (2 * covariance + _C2) / (variances + _C2)
    return (2 * mx * my + _C1) / (mx**2 + my**2 + _C1) * contrast, contrast


def _blur(image: np.ndarray) -> np.ndarray:
    reach = SSIM_WINDOW // 2
    return ndimage.gaussian_filter(image, 1.5, radius=reach)[reach:-reach, reach:-reach]


def _halve(image: np.ndarray) -> np.ndarray:
    """(H, W) -> (H // 2, 2, W // 2, 2); an odd last row or column is left out."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return image[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
