"""PSNR and SSIM as the tables of the super-resolution literature have them, for comparison with published numbers.

They differ from `metrics` in their details: a border may be left out, luma is rounded to 8 bit before it is compared,
and SSIM counts only windows that lie inside the picture.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from retinashift.evaluation.similarity import psnr_rgb

from .matlab import rgb_to_ycbcr

INSIDE = 5
"""Half of the 11x11 window."""


def published_psnr(sr: np.ndarray, hr: np.ndarray, border: int = 0, luma: bool = False) -> float:
    """Peak signal-to-noise ratio in dB.

    Args:
        sr, hr: (H, W, 3) uint8.
        border: pixels left out on every side.
        luma: Y alone, rounded to 8 bit.

    Raises ValueError as `psnr_rgb`.
    """
    return psnr_rgb(*(_compared(picture, border, luma) for picture in (sr, hr)))


def published_ssim(sr: np.ndarray, hr: np.ndarray, border: int = 0, luma: bool = False) -> float:
    """Mean over the channels, or of Y alone; arguments as in `published_psnr`."""
    a, b = (np.atleast_3d(_compared(picture, border, luma)).astype(np.float64) for picture in (sr, hr))
    scores = []
    for channel in range(a.shape[2]):
        _, similarity = structural_similarity(
            a[..., channel], b[..., channel],
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True,
        )  # fmt: skip
        scores.append(similarity[INSIDE:-INSIDE, INSIDE:-INSIDE].mean())
    return float(np.mean(scores))


def _compared(picture: np.ndarray, border: int, luma: bool) -> np.ndarray:
    inner = picture[border : picture.shape[0] - border, border : picture.shape[1] - border]
    return rgb_to_ycbcr(inner)[..., 0] if luma else inner
