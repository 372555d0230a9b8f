"""Similarity to the reference, PSNR and SSIM, and consistency with the low-resolution input.

Pictures are uint8. A mask, (H, W) bool, restricts a score to the field of view. Definitions follow the protocol in the
data card.
"""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import structural_similarity

from retinashift.evaluation.scores import Metric, Result, Score, Scores
from retinashift.imaging.degradation.bicubic import DEGRADATION, bicubic_pillow
from retinashift.imaging.fundus import DARKEST_FIELD, SURROUND_FACTOR

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; its sigma is 1.5. Smaller pictures have no SSIM."""


def psnr_rgb(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio over all channels, in dB; inf for equal pictures.

    Args:
        sr, hr: (H, W, 3) or (H, W), uint8.
        mask: (H, W) bool, or None for the whole frame.

    Raises:
        ValueError: shapes differ, another dtype, or an empty mask.

    >>> round(psnr_rgb(np.full((4, 4, 3), 101, np.uint8), np.full((4, 4, 3), 100, np.uint8)), 2)
    48.13
    """
    check_pair(sr, hr, mask)
    return _psnr(sr.astype(np.float64), hr.astype(np.float64), mask)


def psnr_y(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None = None) -> float:
    """`psnr_rgb` on the luma of `luma_studio`, with the peak 255 that is customary for it."""
    check_pair(sr, hr, mask)
    return _psnr(luma_studio(sr), luma_studio(hr), mask)


def ssim_y(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Structural similarity of the luma of `luma_studio`: mean of the full map over the mask.

    Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, range 255, population covariance; the frame is mirrored at its
    border.

    Args:
        sr, hr, mask: as for `psnr_rgb`, both sides at least 11.

    Raises:
        ValueError: as `psnr_rgb`, or pictures below 11x11.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004; as in scikit-image.
    """
    check_pair(sr, hr, mask)
    if min(sr.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"pictures are {sr.shape[1]}x{sr.shape[0]}; SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")
    _, similarity = structural_similarity(
        luma_studio(sr),
        luma_studio(hr),
        gaussian_weights=True,
        sigma=1.5,  # with scikit-image's truncation at 3.5 sigma: 11 pixels
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )  # (H, W)
    return float(np.mean(similarity if mask is None else similarity[mask]))


def consistency(sr: np.ndarray, lr: np.ndarray, scale: int) -> float:
    """PSNR in dB between the input and the reconstruction reduced by `bicubic_pillow`; inf if they are equal.

    Args:
        sr: (scale H, scale W, 3) or (scale H, scale W), uint8.
        lr: (H, W, 3) or (H, W), uint8.

    Raises:
        ValueError: `sr` is not `scale` times `lr`, or another dtype.
    """
    expected = (lr.shape[0] * scale, lr.shape[1] * scale, *lr.shape[2:])
    if sr.shape != expected:
        raise ValueError(f"the reconstruction has shape {sr.shape}; x{scale} of an input {lr.shape} is {expected}")
    check_pair(sr, sr, None)
    return psnr_rgb(bicubic_pillow(sr, scale), lr)


def luma_studio(pixels: np.ndarray) -> np.ndarray:
    """BT.601 luma, 16 for black and 235 for white, not rounded: (H, W) float64.

    Args:
        pixels: (H, W, 3) or (H, W), uint8; grey counts as three equal channels.

    Source: ITU-R BT.601-7, section 2.5.
    """
    if pixels.ndim == 2:
        return 16 + pixels.astype(np.float64) * (219 / 255)
    return 16 + pixels @ np.array([65.481, 128.553, 24.966]) / 255


def check_pair(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None) -> None:
    """ValueError unless both are uint8, (H, W) or (H, W, 3), of one shape, and the mask is bool and not empty."""
    if sr.shape != hr.shape:
        raise ValueError(f"pictures of shapes {sr.shape} and {hr.shape} cannot be compared; they must be equal")
    if not (sr.ndim == 2 or (sr.ndim == 3 and sr.shape[2] == 3)) or 0 in sr.shape:
        raise ValueError(f"pictures have shape {sr.shape}; (H, W) or (H, W, 3) is needed, no side empty")
    if sr.dtype != np.uint8 or hr.dtype != np.uint8:
        raise ValueError(f"pictures are {sr.dtype} and {hr.dtype}; uint8 is needed")
    if mask is not None and (mask.shape != sr.shape[:2] or mask.dtype != np.bool_ or not mask.any()):
        raise ValueError(f"the mask is {mask.dtype} {mask.shape}; bool {sr.shape[:2]} with some True is needed")


def _psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None) -> float:
    difference = a - b if mask is None else a[mask] - b[mask]
    error = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _fidelity(result: Result) -> Scores:
    sr, hr, field = result.sr, result.subject.hr, result.subject.field
    scores: Scores = {}
    for score in (psnr_rgb, psnr_y, ssim_y):
        scores |= {score.__name__: score(sr, hr), f"{score.__name__}_fov": score(sr, hr, field)}
    return scores | {"consistency": consistency(sr, result.subject.lr, result.subject.scale)}


FIDELITY = Metric(
    (
        Score("psnr_rgb", "PSNR dB", 2, note="over all channels"),
        Score("psnr_rgb_fov", "PSNR fov", 2, plotted=True, note="in the field of view alone"),
        Score("psnr_y", note="BT.601 luma, 16 to 235, not rounded; peak 255"),
        Score("psnr_y_fov", "PSNR-Y fov", 2),
        Score(
            "ssim_y", note=f"{SSIM_WINDOW}x{SSIM_WINDOW} Gaussian, sigma 1.5, K1 0.01, K2 0.03, range 255, same luma"
        ),
        Score("ssim_y_fov", "SSIM-Y fov", 4, plotted=True),
        Score(
            "consistency",
            "consistency dB",
            2,
            plotted=True,
            note=f"PSNR between the input and the result reduced by {DEGRADATION}",
        ),
    ),
    _fidelity,
    {
        "field_of_view": f"full-range BT.601 luma above {SURROUND_FACTOR} x the 99th percentile of the corners, at "
        f"least {DARKEST_FIELD:g}; largest component, holes filled, eroded by 4 pixels",
    },
)
"""Measured of every result."""
