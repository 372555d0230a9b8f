"""Similarity to the reference: PSNR, SSIM, colour, perception, sharpness, coverage; and consistency with the input.

Pictures are uint8. A mask, (H, W) bool, restricts a score to the field of view. Definitions follow the data card.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import fft
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from retinashift.evaluation.scores import Result, Score, Scores, Subject, metric
from retinashift.imaging.degradation.bicubic import Bicubic, bicubic_pillow
from retinashift.imaging.figures import shown
from retinashift.imaging.fundus import DARKEST_FIELD, SURROUND_FACTOR

if TYPE_CHECKING:  # torch is imported where it is used: the help of the command lists the metrics without it
    from torch import Tensor

SSIM_WINDOW = 11  # side of the Gaussian window in pixels; its sigma is 1.5. Smaller pictures have no SSIM
Perceptual = Literal["st-lpips", "lpips"]
SMALLEST: dict[Perceptual, int] = {"st-lpips": 32, "lpips": 31}  # sides in pixels that the networks take
EQUAL = 100.0  # dB; about what one value in 150,000 that is one level off leaves
BANDS = 32  # rings of equal width from 0 to half a cycle a pixel
Z = 1.6448536269514722  # half width in deviations of a 90 % interval; `models.uncertainty_head` has it, and loads torch


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
    border. Arguments and errors as for `psnr_rgb`; ValueError also for pictures below 11x11.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004; as in scikit-image.
    """
    check_pair(sr, hr, mask)
    if min(sr.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"pictures are {sr.shape[1]}x{sr.shape[0]}; SSIM needs at least {SSIM_WINDOW}x{SSIM_WINDOW}")
    _, similarity = structural_similarity(  # (H, W); scikit-image truncates at 3.5 sigma: 11 pixels
        luma_studio(sr), luma_studio(hr), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255, full=True,
    )  # fmt: skip
    return float(np.mean(similarity if mask is None else similarity[mask]))


def consistency(sr: np.ndarray, lr: np.ndarray, scale: int) -> float:
    """PSNR in dB between the input and the reconstruction reduced by `bicubic_pillow`; equal ones count as `EQUAL`.

    `sr` is (scale H, scale W[, 3]) and `lr` (H, W[, 3]), uint8; ValueError for others.
    """
    expected = (lr.shape[0] * scale, lr.shape[1] * scale, *lr.shape[2:])
    if sr.shape != expected:
        raise ValueError(f"the reconstruction has shape {sr.shape}; x{scale} of an input {lr.shape} is {expected}")
    return min(psnr_rgb(bicubic_pillow(sr, scale), lr), EQUAL)


def colour_differences(sr: np.ndarray, hr: np.ndarray, field: np.ndarray) -> np.ndarray:
    """CIEDE2000 of each pixel in the field, (n,); about 1 is just noticeable.

    Pictures are (H, W, 3), uint8 sRGB, seen under D65; ValueError as for `psnr_rgb`.

    Source: Luo, Cui, Rigg, "The development of the CIE 2000 colour-difference formula", 2001; as in scikit-image.
    """
    check_pair(sr, hr, field)
    return deltaE_ciede2000(rgb2lab(hr[field]), rgb2lab(sr[field]))


@cache
def network(name: Perceptual) -> Callable[[Tensor, Tensor], Tensor]:
    """The network of a metric, loaded once.

    ValueError without the extra `lpips`, or where AlexNet's weights are not in torch's cache and cannot be downloaded.
    """
    from retinashift.models.perceptual import LPIPS, ShiftTolerantLPIPS

    return ShiftTolerantLPIPS.pretrained() if name == "st-lpips" else LPIPS.pretrained("alex")


def perceptual_distance(name: Perceptual, sr: np.ndarray, hr: np.ndarray) -> np.ndarray | None:
    """ST-LPIPS as a map, (H, W), or LPIPS 0.1, (), both by AlexNet; 0 for equal pictures, None for too small ones.

    ST-LPIPS forgives block edges and punishes noise, so never read it alone. Errors as for `psnr_rgb` and `network`.
    """
    import torch

    check_pair(sr, hr, None)
    if min(sr.shape[:2]) < SMALLEST[name]:
        return None
    pair = (torch.tensor(shown(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1 for pixels in (sr, hr))
    return network(name)(*pair)[0].numpy()  # of (1, 3, H, W) each


def radial_power(pixels: np.ndarray, field: np.ndarray) -> np.ndarray | None:
    """Mean power of the luma in rings of frequency: ring i is around (i + 0.5) / (2 BANDS) cycles a pixel.

    It is taken in a square inside the circle that fills the field's box, so that the edge of the aperture stays out.
    The mean is subtracted, and a Hann window fades the border.

    Returns:
        (BANDS,) float64. None where the square is less than 64 pixels wide.
    """
    rows, columns = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    side = int(min(np.ptp(rows), np.ptp(columns)) / np.sqrt(2))
    top, left = ((line[0] + line[-1] - side) // 2 for line in (rows, columns))
    square = luma_studio(pixels[top : top + side + 1, left : left + side + 1])
    if min(square.shape) < 2 * BANDS:
        return None
    height, width = square.shape
    faded = (square - square.mean()) * np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(fft.fft2(faded)) ** 2  # (h, w)
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width))
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS)  # the corners, beyond half a cycle, come last
    sums, counts = (np.bincount(ring.ravel(), weights, BANDS + 1)[:BANDS] for weights in (power.ravel(), None))
    return sums / counts


def sharpness(sr: np.ndarray, hr: np.ndarray, scale: int) -> float:
    """`radial_power` of a result over the photograph's, (BANDS,) each, in the octave above what the input can hold.

    That is 1/(2 scale) to 1/scale cycles a pixel, at most one half. Below 1 the result is blurred; above 1 it is
    sharper or noisier than the photograph; nan if that has nothing there. It does not tell where detail lies.
    """
    frequency = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    octave = (frequency >= 0.5 / scale) & (frequency < max(1 / scale, 0.5 / scale + 1 / BANDS))
    weight = frequency[octave]  # a ring's area
    reference = float((hr[octave] * weight).sum())
    return float((sr[octave] * weight).sum()) / reference if reference else float("nan")


def reference_power(subject: Subject) -> np.ndarray | None:
    """`radial_power` of the photograph. To be given to `Subject.derive`."""
    return radial_power(subject.hr, subject.field)


def result_power(result: Result) -> np.ndarray | None:
    """`radial_power` of the result. To be given to `Result.derive`."""
    return radial_power(result.sr, result.subject.field)


def absolute_errors(result: Result) -> np.ndarray:
    """|result - reference|, as `Result.sr`, float32 in levels of 255."""
    return np.abs(result.sr.astype(np.float32) - result.subject.hr)


def error_ratios(result: Result) -> np.ndarray:
    """|error| / sigma of the values in the field, all channels together, (n,)."""
    assert result.sigma is not None
    field = result.subject.field
    errors = absolute_errors(result)[field].reshape(int(field.sum()), -1) / 255  # (pixels, C)
    return (errors / result.sigma[field][:, None]).ravel()


def luma_studio(pixels: np.ndarray) -> np.ndarray:
    """BT.601 luma, 16 for black and 235 for white, not rounded: (H, W, 3) or (H, W) uint8 -> (H, W) float64.

    Grey counts as three equal channels. Source: ITU-R BT.601-7, section 2.5.
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


@metric(
    Score("psnr_rgb", "PSNR dB", 2, note="over all channels"),
    Score("psnr_rgb_fov", "PSNR fov", 2, plotted=True, note="in the field of view alone"),
    Score("psnr_y", note="BT.601 luma, 16 to 235, not rounded; peak 255"),
    Score("psnr_y_fov", "PSNR-Y fov", 2),
    Score("ssim_y", note=f"{SSIM_WINDOW}x{SSIM_WINDOW} Gaussian, sigma 1.5, K1 0.01, K2 0.03, range 255, same luma"),
    Score("ssim_y_fov", "SSIM-Y fov", 4, plotted=True),
    Score(
        "consistency", "consistency dB", 2, plotted=True,
        note=f"PSNR between the input and the result reduced by {Bicubic.kind}; {EQUAL:g} if equal",
    ),
    protocol={
        "field_of_view": f"full-range BT.601 luma above {SURROUND_FACTOR} x the 99th percentile of the corners, at "
        f"least {DARKEST_FIELD:g}; largest component, holes filled, eroded by 4 pixels"
    },
)  # fmt: skip
def fidelity(result: Result) -> Scores:
    """Measured of every result."""
    sr, hr, field = result.sr, result.subject.hr, result.subject.field
    scores: Scores = {}
    for score in (psnr_rgb, psnr_y, ssim_y):
        scores |= {score.__name__: score(sr, hr), f"{score.__name__}_fov": score(sr, hr, field)}
    return scores | {"consistency": consistency(sr, result.subject.lr, result.subject.scale)}


@metric(
    Score("colour_mean", "colour", 2, "less", plotted=True, note="mean CIEDE2000 in the field of view, sRGB, D65"),
    Score("colour_p95", "colour 95 %", 2, "less", note="95th percentile of it"),
)
def colour(result: Result) -> Scores:
    if result.sr.ndim == 2:
        return {}
    difference = colour_differences(result.sr, result.subject.hr, result.subject.field)
    return {"colour_mean": float(difference.mean()), "colour_p95": float(np.percentile(difference, 95))}


@metric(
    Score("st_lpips", note="ST-LPIPS, AlexNet, weights of stlpips_pytorch 0.0.2, mean of the map"),
    Score("st_lpips_fov", "ST-LPIPS fov", 4, "less", plotted=True, note="perceptual distance in the field of view"),
    note="needs the extra lpips",
    prepare=partial(network, "st-lpips"),
)
def shift_tolerant(result: Result) -> Scores:
    distance = perceptual_distance("st-lpips", result.sr, result.subject.hr)
    if distance is None:
        return {}
    return {"st_lpips": float(distance.mean()), "st_lpips_fov": float(distance[result.subject.field].mean())}


@metric(
    Score("lpips_alex", "LPIPS", 4, "less", note="LPIPS 0.1, AlexNet, heads of torchmetrics, whole frame"),
    note="needs the extra lpips and downloads AlexNet once",
    prepare=partial(network, "lpips"),
)
def perceptual(result: Result) -> Scores:
    distance = perceptual_distance("lpips", result.sr, result.subject.hr)
    return {} if distance is None else {"lpips_alex": float(distance)}


@metric(
    Score(
        "sharpness", "sharpness", 2, "none",
        note="power over the reference's in the octave above the input's Nyquist frequency; luma, inner square of the "
        "field, Hann window",
    )
)  # fmt: skip
def spectrum(result: Result) -> Scores:
    power, reference = result.derive(result_power), result.subject.derive(reference_power)
    if power is None or reference is None:
        return {}
    return {"sharpness": sharpness(power, reference, result.subject.scale)}


@metric(
    Score(
        "coverage", "in 90 %", 3, "none", plotted=True,
        note=f"share of the values in the field of view, RGB pooled, within {Z:.3f} standard deviations of the result; "
        "90 % is stated",
    ),
    note="needs a checkpoint with an uncertainty head",
)  # fmt: skip
def coverage(result: Result) -> Scores:
    return {} if result.sigma is None else {"coverage": float((error_ratios(result) <= Z).mean())}
