"""Degradations by the optics of the eye and the lens: uneven light, haze, spots.

Pictures are (H, W, 3) float32 in [0, 1]. Source of the three models: Shen, Fu, Shen, Shao, "Modeling and enhancing
low-quality retinal fundus images", IEEE TMI 40(3), 2021. Light transmission disturbance, image blurring and retinal
artefacts are theirs; the blur is in `camera`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit

HAZE_COLOUR = (0.85, 0.72, 0.55)
"""Colour of the light that a cloudy lens scatters back: the flash, reddened by the eye."""


def uneven_light(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Brighten or darken a broad Gaussian patch. May exceed 1.

    Args:
        strength: of the patch at its centre, as a share of the light; 0 changes nothing.
        generator: draws its place, its width (0.3 to 0.7 of the picture) and its sign.
    """
    patch = _patch(image.shape[:2], generator, 0.3, 0.7)
    sign = 1.0 if generator.random() < 0.5 else -1.0
    return (image * (1 + sign * strength * patch[..., None])).astype(np.float32)


def haze(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Add the haze of a cloudy lens: J t + A (1 - t), transmission t = 1 - strength * (0.6 to 1, smooth).

    Args:
        strength: share of the light that is scattered, 0 to 1; 0 changes nothing.
        generator: draws the shape of the cloud.
    """
    cloud = 0.6 + 0.4 * _patch(image.shape[:2], generator, 0.4, 0.8)  # (H, W)
    transmission = 1 - strength * cloud[..., None]
    field = ndimage.gaussian_filter(np.minimum(image.max(2) / 0.1, 1), 2)[..., None]  # no haze on the dark surround
    scattered = np.asarray(HAZE_COLOUR, np.float32) * field
    return (image * transmission + scattered * (1 - transmission)).astype(np.float32)


def spots(image: np.ndarray, count: int, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Add dust and drops on the lens, out of focus: soft round spots, bright or dark. May leave [0, 1].

    Args:
        count: of spots.
        strength: change at the centre of a spot, as a share of the range.
        generator: draws place, radius (0.5 to 4 % of the picture) and sign.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = np.zeros((height, width), np.float32)
    for _ in range(count):
        row, column = generator.uniform(0, height), generator.uniform(0, width)
        radius = generator.uniform(0.005, 0.04) * min(height, width)
        sign = 1.0 if generator.random() < 0.7 else -0.6  # bright spots are the more common ones
        beyond = (np.hypot(y - row, x - column) - radius) / (0.2 * radius + 0.5)
        total += sign * strength * expit(-beyond)  # flat in the middle, as a disk out of focus is, soft at the edge
    seen = np.minimum(image.max(2, keepdims=True) / 0.1, 1)  # not on the dark surround
    return (image + total[..., None] * seen * np.asarray((1.0, 0.9, 0.7), np.float32)).astype(np.float32)


def _patch(shape: tuple[int, int], generator: np.random.Generator, narrowest: float, widest: float) -> np.ndarray:
    """A Gaussian of height 1 somewhere in the picture, its widths drawn as shares of it: (H, W) float32."""
    height, width = shape
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    row, column = generator.uniform(0.1, 0.9, 2)
    wide, high = generator.uniform(narrowest, widest, 2)
    return np.exp(-0.5 * (((y - row) / high) ** 2 + ((x - column) / wide) ** 2)).astype(np.float32)
