"""Perceptual distances as metrics: ST-LPIPS, which works offline, and LPIPS, both by AlexNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from retinashift.evaluation.scores import Metric, Result, Score, Scores
from retinashift.evaluation.similarity import check_pair

if TYPE_CHECKING:  # torch is imported where it is used: the help of the command lists the metrics without it
    from torch import Tensor

ST_LPIPS_SMALLEST, LPIPS_SMALLEST = 32, 31
"""Shortest sides in pixels that the networks take."""


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
    distance = network("st-lpips")(*_tensors(sr, hr, "ST-LPIPS", ST_LPIPS_SMALLEST))[0].numpy()  # (H, W)
    return [float(distance.mean() if mask is None else distance[mask].mean()) for mask in masks]


def lpips_alex(sr: np.ndarray, hr: np.ndarray) -> float:
    """LPIPS 0.1 (AlexNet) of the whole frame; pictures and errors as for `st_lpips`, both sides at least 31.

    Raises:
        ValueError: also where the weights of AlexNet are neither in torch's cache nor can be downloaded.
    """
    check_pair(sr, hr, None)
    return float(network("lpips")(*_tensors(sr, hr, "LPIPS", LPIPS_SMALLEST)))


@cache
def network(name: Literal["st-lpips", "lpips"]) -> Callable[[Tensor, Tensor], Tensor]:
    """The network of a metric, loaded once. ValueError where its weights are missing."""
    from retinashift.models.perceptual import LPIPS, ShiftTolerantLPIPS

    return ShiftTolerantLPIPS.pretrained() if name == "st-lpips" else LPIPS.pretrained("alex")


def _tensors(sr: np.ndarray, hr: np.ndarray, name: str, smallest: int) -> list[Tensor]:
    """(1, 3, H, W) in [-1, 1] of both."""
    import torch

    if min(sr.shape[:2]) < smallest:
        raise ValueError(f"pictures are {sr.shape[1]}x{sr.shape[0]}; {name} needs at least {smallest}x{smallest}")
    rgb = [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2) for pixels in (sr, hr)]
    return [torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1 for pixels in rgb]


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
