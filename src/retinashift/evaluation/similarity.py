"""Similarity to the reference: PSNR, SSIM, colour, perceptual distances; and consistency with the input.

Pictures are uint8. A mask, (H, W) bool, restricts a score to the field of view. Definitions follow the protocol in the
data card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from retinashift.evaluation.scores import Metric, Result, Score, Scores
from retinashift.imaging.degradation.bicubic import Bicubic, bicubic_pillow
from retinashift.imaging.figures import shown
from retinashift.imaging.fundus import DARKEST_FIELD, SURROUND_FACTOR

if TYPE_CHECKING:  # torch is imported where it is used: the help of the command lists the metrics without it
    from torch import Tensor

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; its sigma is 1.5. Smaller pictures have no SSIM."""
ST_LPIPS_SMALLEST, LPIPS_SMALLEST = 32, 31
"""Shortest sides in pixels that the networks take."""


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


def colour_differences(sr: np.ndarray, hr: np.ndarray, field: np.ndarray) -> np.ndarray:
    """CIEDE2000 of each pixel in the field, (n,); about 1 is just noticeable.

    Args:
        sr, hr: (H, W, 3), uint8 sRGB, seen under D65.
        field: (H, W) bool.

    Raises:
        ValueError: shapes or dtypes as for `psnr_rgb`.

    Source: Luo, Cui, Rigg, "The development of the CIE 2000 colour-difference formula", 2001; as in scikit-image.
    """
    check_pair(sr, hr, field)
    return deltaE_ciede2000(rgb2lab(hr[field]), rgb2lab(sr[field]))


def st_lpips(sr: np.ndarray, hr: np.ndarray, masks: Sequence[np.ndarray | None] = (None,)) -> list[float]:
    """ST-LPIPS (AlexNet): the mean of the distance map over each mask, 0 for equal pictures.

    It forgives block edges and punishes noise, so never read it alone.

    Args:
        sr, hr, masks: as for `psnr_rgb`, both sides at least 32.

    Raises:
        ValueError: as `psnr_rgb`; a side below 32; the extra `lpips` is not installed.
    """
    for mask in masks:
        check_pair(sr, hr, mask)
    distance = _distance("st-lpips", sr, hr, ST_LPIPS_SMALLEST)  # (H, W)
    return [float(distance.mean() if mask is None else distance[mask].mean()) for mask in masks]


def lpips_alex(sr: np.ndarray, hr: np.ndarray) -> float:
    """LPIPS 0.1 (AlexNet) of the whole frame; pictures and errors as for `st_lpips`, both sides at least 31.

    Raises:
        ValueError: also where the weights of AlexNet are neither in torch's cache nor can be downloaded.
    """
    check_pair(sr, hr, None)
    return float(_distance("lpips", sr, hr, LPIPS_SMALLEST))


@cache
def network(name: Literal["st-lpips", "lpips"]) -> Callable[[Tensor, Tensor], Tensor]:
    """The network of a metric, loaded once. ValueError where its weights are missing."""
    from retinashift.models.perceptual import LPIPS, ShiftTolerantLPIPS

    return ShiftTolerantLPIPS.pretrained() if name == "st-lpips" else LPIPS.pretrained("alex")


def _distance(name: Literal["st-lpips", "lpips"], sr: np.ndarray, hr: np.ndarray, smallest: int) -> np.ndarray:
    """What the network says of two pictures: (H, W) or a scalar."""
    import torch

    if min(sr.shape[:2]) < smallest:
        raise ValueError(f"pictures are {sr.shape[1]}x{sr.shape[0]}; {name} needs at least {smallest}x{smallest}")
    pair = [
        torch.tensor(shown(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1 for pixels in (sr, hr)
    ]  # (1, 3, H, W)
    return network(name)(*pair)[0].numpy()


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
            note=f"PSNR between the input and the result reduced by {Bicubic.kind}",
        ),
    ),
    _fidelity,
    {
        "field_of_view": f"full-range BT.601 luma above {SURROUND_FACTOR} x the 99th percentile of the corners, at "
        f"least {DARKEST_FIELD:g}; largest component, holes filled, eroded by 4 pixels"
    },
)
"""Measured of every result."""


def _colour(result: Result) -> Scores:
    if result.sr.ndim == 2:
        return {}
    difference = colour_differences(result.sr, result.subject.hr, result.subject.field)
    return {"colour_mean": float(difference.mean()), "colour_p95": float(np.percentile(difference, 95))}


COLOUR = Metric(
    (
        Score("colour_mean", "colour", 2, "less", plotted=True, note="mean CIEDE2000 in the field of view, sRGB, D65"),
        Score("colour_p95", "colour 95 %", 2, "less", note="95th percentile of it"),
    ),
    _colour,
)


def _st_lpips(result: Result) -> Scores:
    if min(result.sr.shape[:2]) < ST_LPIPS_SMALLEST:
        return {}
    whole, inside = st_lpips(result.sr, result.subject.hr, [None, result.subject.field])
    return {"st_lpips": whole, "st_lpips_fov": inside}


def _lpips(result: Result) -> Scores:
    return {} if min(result.sr.shape[:2]) < LPIPS_SMALLEST else {"lpips_alex": lpips_alex(result.sr, result.subject.hr)}


ST_LPIPS = Metric(
    (
        Score("st_lpips", note="ST-LPIPS, AlexNet, weights of stlpips_pytorch 0.0.2, mean of the map"),
        Score("st_lpips_fov", "ST-LPIPS fov", 4, "less", plotted=True, note="perceptual distance in the field of view"),
    ),
    _st_lpips,
    note="needs the extra lpips",
    prepare=partial(network, "st-lpips"),
)

LPIPS_ALEX = Metric(
    (Score("lpips_alex", "LPIPS", 4, "less", note="LPIPS 0.1, AlexNet, heads of torchmetrics, whole frame"),),
    _lpips,
    note="needs the extra lpips and downloads AlexNet once",
    prepare=partial(network, "lpips"),
)
