"""Scores of a checkpoint on whole photographs, beside bicubic interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.figures.comparison import side_by_side
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.training.pool import PhotographSet

SIDE = 256
"""Pixels of a square in the picture to look at."""


def validate(
    pipeline: ResShiftPipeline,
    photographs: PhotographSet,
    seed: int,
    degradation: Degradation | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Mean PSNR in dB (RGB, field of view, 8 bit) with the default number of steps, and a picture to look at.

    Inputs of a degradation that is not exact hold noise, so there is no back-projection onto them.

    Returns:
        {"psnr", "psnr_bicubic", "gain"}, and the first photograph beside bicubic and the result, whole and where the
        result differs most from bicubic, (H, W, 3) uint8.
    """
    scale, exact = pipeline.config.scale, degradation is None or degradation.exact
    scores: list[tuple[float, float]] = []
    picture = np.zeros((0, 0, 3), np.uint8)
    for index in range(len(photographs)):
        hr = crop_to_multiple(_uint8(photographs.hr(index)), scale)
        given = photographs.lr(index)
        if given is not None:
            lr = _uint8(given)
        elif degradation is not None:
            lr = degradation(hr, scale, np.random.default_rng((seed, index)))
        else:
            lr = bicubic_pillow(hr, scale)
        generator = torch.Generator().manual_seed(seed)
        sr = pipeline(lr, generator=generator, back_projections=None if exact else 0).images[0]
        plain = enlarge(lr, scale, "bicubic")
        mask = field_of_view(hr)
        scores.append((psnr_rgb(sr, hr, mask), psnr_rgb(plain, hr, mask)))
        if index == 0:
            captions = (f"bicubic, {scores[0][1]:.2f} dB", f"result, {scores[0][0]:.2f} dB", "photograph")
            pictures = dict(zip(captions, (plain, sr, hr), strict=True))
            picture = side_by_side(pictures, most_changed(sr, plain), SIDE, marked=True)
    ours, bicubic = (float(np.mean(column)) for column in zip(*scores, strict=True))
    return {"psnr": ours, "psnr_bicubic": bicubic, "gain": ours - bicubic}, picture


def most_changed(one: np.ndarray, other: np.ndarray, side: int = SIDE // 2) -> tuple[slice, slice]:
    """Rows and columns of the square of that side, or less, where two pictures (H, W, 3) uint8 differ most."""
    height, width = one.shape[:2]
    side = min(side, height, width)
    change = np.abs(one.astype(np.float32) - other).mean(-1)
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(at) for at in np.unravel_index(inside.argmax(), inside.shape))
    return slice(top, top + side), slice(left, left + side)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of uint8 or uint16, which is rounded: for scores and figures only."""
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8))


def _uint8(pixels: torch.Tensor) -> np.ndarray:
    """(3, H, W) uint8 or uint16 -> (H, W, 3) uint8."""
    return to_uint8(pixels.permute(1, 2, 0).cpu().numpy())
