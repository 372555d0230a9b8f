"""Perceptual distances by networks of other people, whose weights are an extra. Both AlexNets; smaller is closer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from retinashift.evaluation.metrics import check_pair
from retinashift.models.st_lpips import SMALLEST, ShiftTolerantLPIPS

ST_LPIPS_SMALLEST = SMALLEST
LPIPS_SMALLEST = 64
"""Shortest side in pixels that AlexNet's strides leave something of."""


def st_lpips(sr: np.ndarray, hr: np.ndarray, masks: Sequence[np.ndarray | None] = (None,)) -> list[float]:
    """ST-LPIPS (AlexNet, the weights of `stlpips_pytorch`): means of the distance map over masks.

    It is lenient on block edges and hard on noise, so never to be read alone.

    Args:
        sr, hr: (H, W, 3) or (H, W), uint8, both sides at least 32.
        masks: (H, W) bool, or None for the whole frame.

    Returns:
        One for each mask, at least 0; 0 for equal pictures.

    Raises:
        ValueError: shapes or dtypes as for `psnr_rgb`; a side below 32; the extra `lpips` is not installed.
    """
    for mask in masks:
        _check(sr, hr, mask, SMALLEST)
    with torch.inference_mode():
        distance = st_lpips_network()(_tensor(sr), _tensor(hr))[0].numpy()  # (H, W)
    return [float(distance.mean() if mask is None else distance[mask].mean()) for mask in masks]


def lpips_alex(sr: np.ndarray, hr: np.ndarray) -> float:
    """LPIPS 0.1 (AlexNet) through torchmetrics, of the whole frame: it gives no map.

    Args:
        sr, hr: (H, W, 3) or (H, W), uint8, both sides at least 64.

    Raises:
        ValueError: shapes or dtypes as for `psnr_rgb`; a side below 64; torchmetrics, torchvision or the weights of
            AlexNet, which torchvision downloads, cannot be had.
    """
    _check(sr, hr, None, LPIPS_SMALLEST)
    with torch.inference_mode():
        return float(lpips_network()(_tensor(sr), _tensor(hr)))


@cache
def st_lpips_network() -> ShiftTolerantLPIPS:
    """Loaded once. ValueError where the extra is not installed."""
    return ShiftTolerantLPIPS.pretrained()


@cache
def lpips_network() -> Callable[[Tensor, Tensor], Tensor]:
    """Loaded once. ValueError, one line, where something of it cannot be had."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="alex")
    except (ImportError, RuntimeError, OSError) as error:  # torchvision absent or of another torch; no network
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            "LPIPS needs torchmetrics, torchvision that fits torch, and the weights of AlexNet that it downloads: "
            f"{reason}. The metric st-lpips works offline: pip install 'retinashift[lpips]'"
        ) from error


def _tensor(pixels: np.ndarray) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 127.5 - 1


def _check(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None, smallest: int) -> None:
    check_pair(sr, hr, mask)
    if min(sr.shape[:2]) < smallest:
        raise ValueError(
            f"pictures are {sr.shape[1]}x{sr.shape[0]}; the distance needs at least {smallest}x{smallest}"
        )
