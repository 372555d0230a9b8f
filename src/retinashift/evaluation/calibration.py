"""Measuring what the spread of samples means: photographs whose truth is known, reduced, sampled and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from retinashift.diffusion.noise import stream_generator
from retinashift.evaluation.scores import Estimate
from retinashift.imaging.degradation.bicubic import DEGRADATION, bicubic_pillow, crop_to_multiple
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.uncertainty import LEVEL, Calibration, SampleMean, Z, coverage, fit_curve

COUNTS = (2, 4, 8)
"""Numbers of samples that are calibrated when none are named."""
VALUES = 20_000
"""Pixels taken from each photograph; neighbours tell the same again."""
Photographs = Iterable[tuple[str, np.ndarray | Callable[[], np.ndarray]]]
STATED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Sampled:
    """Values of one photograph where something was sampled, (n,), in shares of full scale."""

    image: str
    spreads: np.ndarray
    errors: np.ndarray
    """|x0 - mean|"""


@dataclass(frozen=True)
class Coverage:
    """How often the truth is where a stated interval says, over all photographs and for each."""

    samples: int
    stated: tuple[float, ...]
    calibrated: tuple[float, ...]
    spread: tuple[float, ...]
    """Of the bare spread of the samples, were it taken for a standard deviation."""
    images: dict[str, float]
    """Calibrated, at the level of `LEVEL`."""


def sample_errors(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    counts: Sequence[int],
    seed: int,
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> dict[int, list[Sampled]]:
    """Spread and error by number of samples, with all steps of the chain, a `Sampled` for each photograph.

    Args:
        photographs: name and HR pixels, (H, W, 3) uint8, or a function that reads them.
        counts: each at least 2.
        seed: of the samples and of the pixels that are taken.
        on_progress: called after each photograph with the number done.
        on_failure: called with name and error of a photograph that cannot be sampled, which is left out; without it,
            the error is raised.

    Raises:
        ValueError: no photograph, or a count below 2.
    """
    if not counts or min(counts) < 2:
        raise ValueError(f"samples is {', '.join(map(str, counts)) or 'empty'}; at least 2 are needed")
    found: dict[int, list[Sampled]] = {count: [] for count in sorted(set(counts))}
    for number, (name, given) in enumerate(photographs):
        try:
            hr = crop_to_multiple(given() if callable(given) else given, pipeline.config.scale)
            for count, sampled in _sampled(pipeline, name, hr, set(found), seed, number).items():
                found[count].append(sampled)
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(name, error)
        if on_progress is not None:
            on_progress(number + 1)
    if not next(iter(found.values())):
        raise ValueError("no photograph could be sampled; at least one is needed")
    return found


def _sampled(
    pipeline: ResShiftPipeline, name: str, hr: np.ndarray, counts: set[int], seed: int, number: int
) -> dict[int, Sampled]:
    """One photograph, (H, W, 3), by number of samples."""
    chosen = _some_pixels(field_of_view(hr), seed, number)
    truth = hr.reshape(-1, 3)[chosen] / np.float32(255)  # (n, 3)
    found = {}
    for count, mean in _means(pipeline, hr, max(counts), seed):
        if count in counts:
            spread = mean.spread().numpy().ravel()[chosen]  # (n,)
            estimate = (mean.mean[0] / 2 + 0.5).permute(1, 2, 0).reshape(-1, 3).numpy()[chosen]
            inside = spread > 0
            errors = np.abs(estimate - truth)[inside].ravel()
            found[count] = Sampled(name, np.repeat(spread[inside], 3), errors)
    return found


def calibrate(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    *,
    counts: Sequence[int] = COUNTS,
    seed: int = 0,
    source: str = "",
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Calibration:
    """The calibration of a checkpoint, on photographs it was not trained on; see `sample_errors`.

    Args:
        source: name of the photographs, for the protocol.
    """
    found = sample_errors(pipeline, photographs, counts, seed, on_progress, on_failure)
    curves = {
        count: fit_curve(*(np.concatenate([getattr(s, part) for s in sampled]) for part in ("spreads", "errors")))
        for count, sampled in found.items()
    }
    photographs_seen = len(next(iter(found.values())))
    steps = int(pipeline.scheduler.config.num_train_timesteps)
    return Calibration(steps, curves, _protocol(pipeline, photographs_seen, seed, source))


def measure_coverage(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    samples: int,
    *,
    seed: int = 0,
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Coverage:
    """How often the checkpoint's intervals hold on photographs; see `sample_errors`.

    Raises:
        ValueError: also a checkpoint without calibration.
    """
    calibration = calibration_of(pipeline)
    found = sample_errors(pipeline, photographs, [samples], seed, on_progress, on_failure)[samples]
    widths = [NormalDist().inv_cdf(0.5 + level / 2) for level in STATED]
    errors, spreads = (np.concatenate([getattr(s, part) for s in found]) for part in ("errors", "spreads"))
    return Coverage(
        samples,
        STATED,
        tuple(coverage(errors, calibration.sigma(spreads, samples), widths)),
        tuple(coverage(errors, spreads, widths)),
        {s.image: coverage(s.errors, calibration.sigma(s.spreads, samples), [Z])[0] for s in found},
    )


def calibration_of(pipeline: ResShiftPipeline) -> Calibration:
    """That of the checkpoint. ValueError if it has none."""
    if pipeline.config.calibration is None:
        raise ValueError("this checkpoint is not calibrated; run retinashift calibrate on it first")
    return Calibration.from_config(pipeline.config.calibration)


def estimator(pipeline: ResShiftPipeline, samples: int) -> Callable[[np.ndarray, int], Estimate]:
    """What `upscale --uncertainty` makes, as the `run` of a benchmark's method: mean of samples, calibrated sigma.

    Raises:
        ValueError: a checkpoint without calibration, or with none for so few samples.
    """
    calibration_of(pipeline).sigma(np.zeros(1, np.float32), samples)  # says so before the first photograph

    def run(lr: np.ndarray, seed: int) -> Estimate:
        given, generator = lr.astype(np.float32) / 255, torch.Generator().manual_seed(seed)
        result = pipeline(given, generator=generator, ensemble_size=samples, output_uncertainty=True)
        if not result.calibrated or result.sigma is None:
            raise ValueError("this checkpoint was calibrated for another number of steps; calibrate it again")
        return Estimate(result.images[0], result.sigma[0])

    return run


def _means(pipeline: ResShiftPipeline, hr: np.ndarray, samples: int, seed: int) -> Iterable[tuple[int, SampleMean]]:
    """The mean of 1, 2, ... samples of a photograph."""
    lr = bicubic_pillow(hr, pipeline.config.scale).astype(np.float32) / 255
    steps = int(pipeline.scheduler.config.num_train_timesteps)
    mean = SampleMean((3, *hr.shape[:2]), spread=True)
    for count in range(1, samples + 1):
        generator = stream_generator(seed, count)
        image = pipeline(lr, num_inference_steps=steps, generator=generator, output_type="pt").images[0]
        mean.add(iter((image * 2 - 1)[None].split(256, dim=-2)))
        yield count, mean


def _some_pixels(field: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Places in the field, (n,), n at most `VALUES`."""
    inside = np.flatnonzero(field)
    chance = torch.randperm(len(inside), generator=stream_generator(seed, number))
    return inside[np.sort(chance[:VALUES].numpy())]


def _protocol(pipeline: ResShiftPipeline, photographs: int, seed: int, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "photographs": photographs,
        "degradation": DEGRADATION,
        "scale": pipeline.config.scale,
        "channels": "RGB, pooled",
        "field_of_view": "luma above the surround, eroded by 4 pixels",
        "seed": seed,
        "covers": LEVEL,
    }
