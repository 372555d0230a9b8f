"""The evaluate command: a test set's photographs through the baselines and a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from rich.progress import Progress

from retinashift.evaluation.benchmark import Method, Report, baseline, evaluate
from retinashift.imaging.files import ImageError
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.training.sources import FileRef, list_files


def run_evaluation(
    pipeline: ResShiftPipeline, data: str, steps: list[int], seeds: list[int], limit: int, progress: Progress
) -> Report:
    """Score every photograph under `data` (first `limit` if positive). ImageError for one that is not 8 bit."""
    refs = list_files(data)
    refs = refs[:limit] if limit else refs
    scale = pipeline.config.scale
    methods = [baseline(name, scale) for name in ("nearest", "bicubic", "lanczos")]
    methods += [_ours(pipeline, count) for count in steps]
    task = progress.add_task("Evaluating", total=len(refs))
    return evaluate(
        _read(refs), methods, scale=scale, seeds=seeds, on_progress=lambda done: progress.update(task, completed=done)
    )


def _ours(pipeline: ResShiftPipeline, steps: int) -> Method:
    def run(lr: np.ndarray, seed: int) -> np.ndarray:
        return pipeline(lr, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed)).images[0]

    return Method(f"retinashift, {steps} step{'s' if steps > 1 else ''}", run, stochastic=True)


def _read(refs: list[FileRef]) -> Iterator[tuple[str, np.ndarray]]:
    for ref in refs:
        pixels = ref.read()
        if pixels.dtype != np.uint8:
            raise ImageError(f"{ref.name} is {pixels.dtype}; the protocol scores 8-bit photographs")
        yield ref.name, np.ascontiguousarray(pixels)
