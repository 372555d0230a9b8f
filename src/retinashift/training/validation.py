"""Photographs made small and large again by checkpoints: their scores beside bicubic, and a figure to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retinashift.data.photographs import Item
from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.figures import busiest, changed, shown, side_by_side
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline

SIDE, DETAIL = 256, 128  # pixels of a square in the picture to look at, and of the detail in it


@dataclass(frozen=True)
class Comparison:
    """A photograph, its low-resolution input, results by name, and their PSNR in dB (RGB, field of view, 8 bit)."""

    hr: np.ndarray
    lr: np.ndarray
    results: Mapping[str, np.ndarray]
    psnr: Mapping[str, float]

    def figure(self, note: str = "", side: int = SIDE, detail: int = DETAIL) -> np.ndarray:
        """All beside one another, and below them the detail where the last result differs most; see `side_by_side`.

        `note` is said first in the line below; `detail` counts in pixels of the photograph.
        """
        pictures = {f"input\n{self.lr.shape[1]}x{self.lr.shape[0]}": self.lr}
        pictures |= {f"{name}\n{self.psnr[name]:.2f} dB": pixels for name, pixels in self.results.items()}
        pictures[f"original\n{self.hr.shape[1]}x{self.hr.shape[0]}"] = self.hr
        scale, (*others, last) = len(self.hr) // len(self.lr), self.results
        changes = {name: changed(self.results[last], self.results[name], scale) for name in others}
        other = next((name for name in reversed(others) if changes[name].any()), others[0])
        note += f"Framed, and enlarged below: where {last} differs most from {other}. PSNR in RGB, field of view."
        return side_by_side(pictures, busiest(changes[other], detail, scale), side, note=note)


def compare(
    pipelines: Mapping[str, ResShiftPipeline],
    hr: np.ndarray,
    lr: np.ndarray | None = None,
    seed: int = 0,
    **options: Any,
) -> Comparison:
    """Bicubic and each pipeline's result; `options` are further arguments of the pipelines, which have one scale.

    Rows and columns of `hr`, (H, W, 3) uint8, beyond a multiple of the scale are left out. None as `lr` is bicubic.
    """
    scale = next(iter(pipelines.values())).config.scale
    hr = crop_to_multiple(hr, scale)
    lr = bicubic_pillow(hr, scale) if lr is None else lr
    results = {"bicubic": enlarge(lr, scale, "bicubic")}
    for name, pipeline in pipelines.items():
        results[name] = pipeline(lr, generator=torch.Generator().manual_seed(seed), **options).images[0]
    field = field_of_view(hr)
    return Comparison(hr, lr, results, {name: psnr_rgb(pixels, hr, field) for name, pixels in results.items()})


def validate(
    pipeline: ResShiftPipeline, items: Sequence[Item], seed: int, degradation: Degradation
) -> tuple[dict[str, Any], np.ndarray]:
    """Mean PSNR in dB (RGB, field of view, 8 bit) with the default number of steps, and a picture to look at.

    Inputs of a degradation that is not exact hold noise, so there is no back-projection onto them.

    Returns:
        {"psnr", "psnr_bicubic", "gain"}; and the first photograph beside its input, bicubic and the result, whole and
        in detail, (H, W, 3) uint8.
    """
    scale, scores = pipeline.config.scale, []
    for index, item in enumerate(items):
        hr, lr = shown(item.hr.read()), None if item.lr is None else shown(item.lr.read())
        if lr is None:
            lr = degradation(crop_to_multiple(hr, scale), scale, np.random.default_rng((seed, index)))
        found = compare({"result": pipeline}, hr, lr, seed, back_projections=None if degradation.exact else 0)
        scores.append((found.psnr["result"], found.psnr["bicubic"]))
        if index == 0:
            picture = found.figure()
    ours, bicubic = (float(np.mean(column)) for column in zip(*scores, strict=True))
    return {"psnr": ours, "psnr_bicubic": bicubic, "gain": ours - bicubic}, picture
