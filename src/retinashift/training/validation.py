"""Scores of a checkpoint on whole photographs, beside bicubic interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.figures.comparison import busiest, changed, shown, side_by_side
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
        {"psnr", "psnr_bicubic", "gain"}; and the first photograph beside its input, bicubic and the result, whole and
        where the result differs most from bicubic, (H, W, 3) uint8.
    """
    scale, exact = pipeline.config.scale, degradation is None or degradation.exact
    scores: list[tuple[float, float]] = []
    picture = np.zeros((0, 0, 3), np.uint8)
    for index in range(len(photographs)):
        hr = crop_to_multiple(shown(photographs.hr(index).permute(1, 2, 0).cpu().numpy()), scale)
        given = photographs.lr(index)
        if given is not None:
            lr = shown(given.permute(1, 2, 0).cpu().numpy())
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
            captions = ("input", f"bicubic\n{scores[0][1]:.2f} dB", f"result\n{scores[0][0]:.2f} dB", "photograph")
            pictures = dict(zip(captions, (lr, plain, sr, hr), strict=True))
            detail = busiest(changed(sr, plain, scale), SIDE // 2, scale)
            picture = side_by_side(pictures, detail, SIDE, note="Framed: where the result differs most from bicubic")
    ours, bicubic = (float(np.mean(column)) for column in zip(*scores, strict=True))
    return {"psnr": ours, "psnr_bicubic": bicubic, "gain": ours - bicubic}, picture
