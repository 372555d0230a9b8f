"""The benchmark: photographs are reduced, upscaled by each method, and scored."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from retinashift.evaluation.metrics import DEFAULT_METRICS, METRICS, chosen_metrics, mean_scores, measure, scores_of
from retinashift.evaluation.report import BICUBIC, Report, Row
from retinashift.evaluation.scores import Estimate, Observed, Result, Scores, Subject
from retinashift.evaluation.similarity import BANDS, luma_studio, reference_power
from retinashift.imaging.degradation.bicubic import Enlargement, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.fundus import field_of_view

T = TypeVar("T")
Photographs = Iterable[tuple[str, np.ndarray | Callable[[], np.ndarray]]]
"""Name and pixels, (H, W, 3) or (H, W) uint8, or a function that reads them: then one at a time is in memory."""
OnFailure = Callable[[str, Exception], object] | None
"""Called with name and error of a photograph that is then left out; None raises the error."""


@dataclass(frozen=True)
class Method:
    """Something that upscales: `run(lr, seed)` takes uint8, (H, W, 3) or (H, W), and returns scale times that.

    It returns uint8, or an `Estimate`, whose uncertainty is scored as well.
    """

    name: str
    run: Callable[[np.ndarray, int], np.ndarray | Estimate]
    stochastic: bool = False  # run once for every seed, and scored by the mean


@dataclass(frozen=True)
class PrecomputedMethod:
    """A method whose pictures exist already: `read(image)` returns uint8, as a `Method` would for that photograph."""

    name: str
    read: Callable[[str], np.ndarray]


def baseline(name: Enlargement, scale: int) -> Method:
    """Interpolation as a method: "nearest", "bicubic" or "lanczos"."""
    return Method(name, lambda lr, seed: enlarge(lr, scale, name))


def evaluate(
    photographs: Photographs,
    methods: Sequence[Method | PrecomputedMethod],
    *,
    scale: int,
    seeds: Sequence[int],
    metrics: Sequence[str] | None = None,
    degradation: Degradation = BICUBIC,
    observed: Callable[[str], Observed] = lambda image: Observed(),
    on_result: Callable[[Result], object] = lambda result: None,
    on_failure: OnFailure = None,
) -> Report:
    """Score methods over photographs.

    Args:
        photographs: each side at least 11 pixels and the scale.
        scale: whole number, at least 1.
        seeds: for stochastic methods, at least one.
        metrics: names in `METRICS`, measured beside PSNR, SSIM and consistency; None takes the default ones.
        degradation: how the inputs are made; random ones are drawn with the seed (0, number of the photograph).
        observed: what experts marked on the photograph of a name; vessels in its uncropped size.
        on_result: called with each result; for a stochastic method the result of the first seed.
        on_failure: a photograph that fails is left out for all methods.

    Raises:
        ValueError: no photograph, method or seed; a name twice; an unknown metric, or one whose extra is missing; or,
            named, a picture or label that cannot be scored.
    """
    names = [method.name for method in methods]
    if not names or not seeds:
        raise ValueError(f"{len(names)} methods and {len(seeds)} seeds were given; at least one of each is needed")
    for kind, values in (("method", names), ("seed", list(seeds))):
        if len(set(values)) < len(values):
            raise ValueError(f"a {kind} is given twice: {', '.join(map(str, values))}")
    chosen = chosen_metrics(DEFAULT_METRICS if metrics is None else metrics)
    for name in chosen:
        METRICS[name].prepare()
    rows: list[Row] = []
    failed: list[str] = []

    def work(number: int, image: str, pixels: np.ndarray) -> list[tuple[Row, Result]]:
        subject = subject_of(image, pixels, scale, observed(image), degradation, number)
        return [_scored(method, subject, seeds, chosen) for method in methods]

    def leave_out(image: str, error: Exception) -> None:
        if on_failure is None:
            raise error
        failed.append(image)
        on_failure(image, error)

    for scored in work_through(photographs, work, leave_out):
        for row, result in scored:
            rows.append(row)
            on_result(result)
    if not rows:
        raise ValueError("no photograph could be scored; at least one is needed")
    return Report(scale, tuple(seeds), tuple(rows), chosen, degradation=degradation, failed=tuple(failed))


def work_through(
    photographs: Photographs, work: Callable[[int, str, np.ndarray], T], on_failure: OnFailure
) -> Iterator[T]:
    """What `work(number, name, pixels)` makes of each photograph."""
    for number, (image, given) in enumerate(photographs):
        try:
            made = work(number, image, given() if callable(given) else given)
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(image, error)
        else:
            yield made


def degraded(hr: np.ndarray, scale: int, degradation: Degradation, number: int) -> np.ndarray:
    """The input made from the photograph of that number, (H, W, 3) or (H, W) uint8 -> the same by `scale`."""
    return degradation(hr, scale, np.random.default_rng((0, number)))


def subject_of(
    image: str, pixels: np.ndarray, scale: int, observed: Observed, degradation: Degradation, number: int
) -> Subject:
    """The photograph, cropped to whole pixels of the input, with its input and field; ValueError names it."""
    try:
        hr, vessels = crop_to_multiple(pixels, scale), observed.vessels
        if vessels is not None:
            if vessels.shape != pixels.shape[:2]:
                height, width = vessels.shape
                raise ValueError(f"its label is {width}x{height}, the photograph {pixels.shape[1]}x{pixels.shape[0]}")
            observed = replace(observed, vessels=crop_to_multiple(vessels, scale))
        return Subject(image, hr, degraded(hr, scale, degradation, number), field_of_view(hr), scale, observed)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def _scored(
    method: Method | PrecomputedMethod, subject: Subject, seeds: Sequence[int], metrics: Sequence[str]
) -> tuple[Row, Result]:
    """The mean over seeds, and the result of the first. ValueError names photograph and method."""
    used = tuple(seeds) if isinstance(method, Method) and method.stochastic else ()
    results = []
    for seed in used or (seeds[0],):
        try:
            results.append(measure(_run(method, subject, seed), metrics))
        except ValueError as error:
            raise ValueError(f"{subject.image}, {method.name}: {error}") from error
    over_seeds = [replace(score, weight="") for score in scores_of(metrics)]  # weights count over photographs
    scores = mean_scores([result.scores for result in results], over_seeds)
    return Row(subject.image, method.name, used, scores, subject.derive(_groups)), results[0]


def _groups(subject: Subject) -> dict[str, str | float]:
    """Set (the first folder of the name), brightness, detail that the input holds, and whether lesions are marked."""
    groups: dict[str, str | float] = {"brightness": float(luma_studio(subject.hr)[subject.field].mean())}
    power = subject.derive(reference_power)
    if power is not None:
        limit = BANDS // subject.scale  # of the input's frequencies; its finest octave is above the half of it
        groups["detail"] = float(np.log10(power[limit // 2 : limit].mean() + 1e-9))
    if "/" in subject.image:
        groups["set"] = subject.image.split("/")[0]
    if subject.observed.lesions is not None:
        groups["lesions"] = "marked" if subject.observed.lesions else "none"
    return groups


def _run(method: Method | PrecomputedMethod, subject: Subject, seed: int) -> Result:
    """The result with its seconds, not scored yet."""
    if isinstance(method, PrecomputedMethod):
        return Result(subject, method.name, method.read(subject.image))
    wall, cpu = time.perf_counter(), time.process_time()
    made = method.run(subject.lr, seed)
    cost: Scores = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    pixels, sigma = (made.pixels, made.sigma) if isinstance(made, Estimate) else (made, None)
    return Result(subject, method.name, pixels, sigma, cost)
