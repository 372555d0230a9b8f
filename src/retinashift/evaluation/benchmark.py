"""The benchmark: photographs are reduced, enlarged by each method, and scored; one report with its protocol."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retinashift import __version__
from retinashift.evaluation.intervals import COVERAGE, RESAMPLES, Interval, bootstrap_mean, paired_difference
from retinashift.evaluation.memory import PeakMemory
from retinashift.evaluation.metrics import SSIM_WINDOW
from retinashift.evaluation.scores import (
    DEFAULT_METRICS,
    SCORES,
    Estimate,
    Measured,
    Metric,
    Scores,
    Subject,
    mean_scores,
    measure,
    prepare,
)
from retinashift.evaluation.vessels import ORIENTATIONS, REFERENCE_WIDTH, SIGMAS, THIN, VESSEL_SHARE
from retinashift.imaging.degradation.bicubic import DEGRADATION, Bicubic, Enlargement, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.files import replace_file
from retinashift.imaging.fundus import DARKEST_FIELD, SURROUND_FACTOR, field_of_view
from retinashift.inference.uncertainty import LEVEL, Z

BICUBIC = Bicubic()
"""The protocol of the published figures."""


@dataclass(frozen=True)
class Column:
    """A column of the tables."""

    score: str
    heading: str
    decimals: int
    better: Literal["more", "less", "none"] = "more"
    table: Literal["fidelity", "detail"] = "detail"

    def text(self, scores: Scores) -> str:
        value = getattr(scores, self.score)
        return "-" if value is None else f"{value:.{self.decimals}f}"


COLUMNS = (
    Column("psnr_rgb", "PSNR dB", 2, table="fidelity"), Column("psnr_rgb_fov", "PSNR fov", 2, table="fidelity"),
    Column("psnr_y_fov", "PSNR-Y fov", 2, table="fidelity"), Column("ssim_y_fov", "SSIM-Y fov", 4, table="fidelity"),
    Column("consistency", "consistency dB", 2, table="fidelity"),
    Column("wall_seconds", "seconds", 2, "less", "fidelity"), Column("cpu_seconds", "CPU s", 2, "less", "fidelity"),
    Column("peak_mib", "MiB", 0, "less", "fidelity"),
    Column("ms_ssim_y_fov", "MS-SSIM fov", 4), Column("st_lpips_fov", "ST-LPIPS fov", 4, "less"),
    Column("lpips_alex", "LPIPS", 4, "less"), Column("vessel_dice", "vessels", 3), Column("vessel_thin", "thin", 3),
    Column("label_dice", "label Dice", 3), Column("label_auc", "label AUC", 4), Column("label_thin", "label thin", 3),
    Column("sharpness", "sharpness", 2, "none"), Column("coverage", "in 90 %", 3, "none"),
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """Something that enlarges: `run(lr, seed)` takes uint8, (H, W, 3) or (H, W), and returns scale times that.

    What it returns is uint8, or an `Estimate`, whose uncertainty is scored as well.
    """

    name: str
    run: Callable[[np.ndarray, int], np.ndarray | Estimate]
    stochastic: bool = False
    """Run once for every seed, and scored by the mean."""


@dataclass(frozen=True)
class Results:
    """A method's pictures that exist already: `read(image)` returns uint8, as a `Method` would for that photograph."""

    name: str
    read: Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Result:
    """One reconstruction and its scores, for whoever wants to draw it."""

    subject: Subject
    method: str
    sr: np.ndarray
    measured: Measured


@dataclass(frozen=True)
class Row:
    """One photograph and method; the mean over `seeds`."""

    image: str
    method: str
    seeds: tuple[int, ...]
    """Empty for a method that is not stochastic."""
    scores: Scores


@dataclass(frozen=True)
class Report:
    """Rows in the order of photographs, then methods."""

    scale: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    reference: str = ""
    """Method that the others are compared with, pair by pair; "" is the first that is stochastic, else the last."""
    degradation: Degradation = BICUBIC
    """How the inputs were made."""
    failed: tuple[str, ...] = ()
    """Photographs that could not be scored, and are in no row."""

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @property
    def compared_with(self) -> str:
        """Name of the reference."""
        return self.reference or next((row.method for row in self.rows if row.seeds), self.methods[-1])

    def values(self, method: str, score: str) -> list[float | None]:
        """A score by photograph, in their order."""
        return [getattr(row.scores, score) for row in self.rows if row.method == method]

    def means(self) -> dict[str, Scores]:
        """Mean over photographs by method, in the order of methods; one infinite score makes it infinite."""
        return {name: mean_scores([row.scores for row in self.rows if row.method == name]) for name in self.methods}

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Mean and bootstrap interval by method and score, over the photographs that have the score."""
        found: dict[str, dict[str, Interval]] = {}
        for method in self.methods:
            values = {name: [v for v in self.values(method, name) if v is not None] for name in SCORES}
            found[method] = {name: bootstrap_mean(known) for name, known in values.items() if known}
        return found

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Reference less each other method, by score: paired by photograph, those left out that lack one of the two."""
        found: dict[str, dict[str, Interval]] = {}
        for method in self.methods:
            if method == self.compared_with:
                continue
            found[method] = {}
            for name in SCORES:
                both = zip(self.values(self.compared_with, name), self.values(method, name), strict=True)
                pairs = [(ours, other) for ours, other in both if ours is not None and other is not None]
                if pairs:
                    found[method][name] = paired_difference(*zip(*pairs, strict=True))
        return found

    def protocol(self) -> dict[str, Any]:
        """What the figures depend on, in words and versions."""
        return {
            "scale": self.scale,
            "degradation": self.degradation.kind,
            **self._degradation(),
            "photographs": len(dict.fromkeys(row.image for row in self.rows)),
            "failed": list(self.failed),
            "crop": f"right and bottom, to a multiple of {self.scale}",
            "pixels": "8 bit, as the methods return them; whole size, no border left out",
            "seeds": list(self.seeds),
            "psnr_rgb": "over all channels",
            "psnr_y": "BT.601 luma, 16 to 235, not rounded; peak 255",
            "ssim_y": f"{SSIM_WINDOW}x{SSIM_WINDOW} Gaussian, sigma 1.5, K1 0.01, K2 0.03, range 255, on the same luma",
            "field_of_view": f"full-range BT.601 luma above {SURROUND_FACTOR} x the 99th percentile of the corners, at "
            f"least {DARKEST_FIELD:g}; largest component, holes filled, eroded by 4 pixels",
            "consistency": f"PSNR between the input and the result reduced by {DEGRADATION}",
            **_metric_protocol(self.metrics),
            "seconds": "cpu_seconds of the process, wall_seconds by the clock; a photograph each; results that were "
            "read from a folder have none",
            "peak_mib": "of memory beyond what the process held before, a photograph; where the system tells it",
            "means": 'over seeds, then over photographs that have the score; "inf" where pictures are equal, null '
            "where there is nothing to measure",
            "intervals": f"{COVERAGE:.0%} percentile bootstrap over photographs, {RESAMPLES} draws, seed 0",
            "differences": f"{self.compared_with} less the method, paired by photograph",
            "versions": {"retinashift": __version__}
            | {name: version(name) for name in ("torch", "numpy", "pillow", "scipy", "scikit-image")},
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data: `protocol`, `means`, `intervals` and `differences` by method, `rows`.

        Infinite numbers are the string "inf": JSON has none. What was not measured is null, or left out.
        """
        return {
            "protocol": self.protocol(),
            "means": {name: _finite(scores) for name, scores in self.means().items()},
            "intervals": _plain(self.intervals()),
            "differences": _plain(self.differences()),
            "rows": [
                {"image": row.image, "method": row.method, "seeds": list(row.seeds)} | _finite(row.scores)
                for row in self.rows
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write `to_json` as a file, whole or not at all; one that exists is replaced."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        replace_file(Path(path), (text + "\n").encode())

    def save_csv(self, path: str | Path) -> None:
        """Write one line for each photograph and method; empty where there is no score. As `save` otherwise."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "method", "seeds", *SCORES])
        for row in self.rows:
            values = [getattr(row.scores, name) for name in SCORES]
            seeds = " ".join(map(str, row.seeds))
            writer.writerow([row.image, row.method, seeds, *("" if v is None else repr(v) for v in values)])
        replace_file(Path(path), text.getvalue().encode())

    def columns(self) -> list[Column]:
        """Those of the table that some method has a score in."""
        means = self.means().values()
        return [column for column in COLUMNS if any(getattr(mean, column.score) is not None for mean in means)]

    def _degradation(self) -> dict[str, object]:
        """The ranges that a random degradation drew from."""
        if self.degradation.exact:
            return {}
        ranges = asdict(self.degradation)
        return {"degradation_seed": "0 and the number of the photograph", "degradation_ranges": ranges}

    def table(self, which: Literal["fidelity", "detail"] = "fidelity") -> list[list[str]]:
        """The means as text, heading first. "fov" is the field of view; "-" is not measured."""
        columns = [column for column in self.columns() if column.table == which]
        lines = [[name, *(column.text(mean) for column in columns)] for name, mean in self.means().items()]
        return [["method", *(column.heading for column in columns)], *lines]


def baseline(name: Enlargement, scale: int) -> Method:
    """Interpolation as a method: "nearest", "bicubic" or "lanczos"."""
    return Method(name, lambda lr, seed: enlarge(lr, scale, name))


def evaluate(
    photographs: Iterable[tuple[str, np.ndarray | Callable[[], np.ndarray]]],
    methods: Sequence[Method | Results],
    *,
    scale: int,
    seeds: Sequence[int],
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    degradation: Degradation = BICUBIC,
    label: Callable[[str], np.ndarray | None] = lambda image: None,
    on_progress: Callable[[int], object] | None = None,
    on_result: Callable[[Result], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Report:
    """Score methods over photographs.

    Args:
        photographs: name and HR pixels, (H, W, 3) or (H, W) uint8, each side at least 11 pixels and the scale, or a
            function that reads them. They are taken one by one, so one is in memory.
        methods: with names of their own.
        scale: whole number, at least 1.
        seeds: for stochastic methods, at least one.
        metrics: beside PSNR, SSIM and consistency.
        degradation: how the inputs are made; random ones are drawn with the seed (0, number of the photograph).
        label: an observer's vessels for the name of a photograph, (H, W) bool of its uncropped size, or None.
        on_progress: called after each photograph with the number done.
        on_result: called with each reconstruction; of a stochastic method with that of the first seed.
        on_failure: called with name and error of a photograph that cannot be scored, which no method is then scored
            on; without it, the error is raised.

    Raises:
        ValueError: no photograph, method or seed; a name twice; a metric whose extra is not installed; or, named, a
            picture or label that cannot be scored.
    """
    names = [method.name for method in methods]
    if not names or not seeds:
        raise ValueError(f"{len(names)} methods and {len(seeds)} seeds were given; at least one of each is needed")
    for kind, values in (("method", names), ("seed", list(seeds))):
        if len(set(values)) < len(values):
            raise ValueError(f"a {kind} is given twice: {', '.join(map(str, values))}")
    prepare(metrics)
    rows: list[Row] = []
    failed: list[str] = []
    for number, (image, given) in enumerate(photographs):
        degrade = partial(degraded, scale=scale, degradation=degradation, number=number)
        try:
            subject = _subject(image, given() if callable(given) else given, scale, label, degrade)
            scored = [_score(method, subject, seeds, metrics) for method in methods]
        except Exception as error:
            if on_failure is None:
                raise
            failed.append(image)
            on_failure(image, error)
        else:
            for row, result in scored:
                rows.append(row)
                if on_result is not None:
                    on_result(result)
        if on_progress is not None:
            on_progress(number + 1)
    if not rows:
        raise ValueError("no photograph could be scored; at least one is needed")
    return Report(scale, tuple(seeds), tuple(rows), tuple(metrics), degradation=degradation, failed=tuple(failed))


def _score(
    method: Method | Results, subject: Subject, seeds: Sequence[int], metrics: Sequence[Metric]
) -> tuple[Row, Result]:
    """The mean over the seeds, and the reconstruction of the first."""
    used = tuple(seeds) if isinstance(method, Method) and method.stochastic else ()
    scores, first = [], None
    for seed in used or (seeds[0],):
        try:
            result = _result(method, subject, seed, metrics)
        except ValueError as error:
            raise ValueError(f"{subject.image}, {method.name}: {error}") from error
        first = first or result
        scores.append(result.measured.scores)
    assert first is not None
    return Row(subject.image, method.name, used, mean_scores(scores)), first


def degraded(hr: np.ndarray, scale: int, degradation: Degradation, number: int) -> np.ndarray:
    """The input made from the photograph of that number, (H, W, 3) or (H, W) uint8 -> the same by `scale`."""
    return degradation(hr, scale, np.random.default_rng((0, number)))


def _subject(
    image: str,
    pixels: np.ndarray,
    scale: int,
    label: Callable[[str], np.ndarray | None],
    degrade: Callable[[np.ndarray], np.ndarray],
) -> Subject:
    try:
        hr = crop_to_multiple(pixels, scale)
        truth = label(image)
        if truth is not None:
            if truth.shape != pixels.shape[:2]:
                height, width = truth.shape
                raise ValueError(f"its label is {width}x{height}, the photograph {pixels.shape[1]}x{pixels.shape[0]}")
            truth = crop_to_multiple(truth, scale)
        return Subject(image, hr, degrade(hr), field_of_view(hr), scale, truth)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def _result(method: Method | Results, subject: Subject, seed: int, metrics: Sequence[Metric]) -> Result:
    if isinstance(method, Results):
        sr = method.read(subject.image)
        return Result(subject, method.name, sr, measure(sr, subject, metrics))
    with PeakMemory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        made = method.run(subject.lr, seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    measured = measure(made, subject, metrics)
    sr = made.pixels if isinstance(made, Estimate) else made
    scores = replace(measured.scores, cpu_seconds=cpu, wall_seconds=wall, peak_mib=memory.mib)
    return Result(subject, method.name, sr, replace(measured, scores=scores))


def _metric_protocol(metrics: Sequence[Metric]) -> dict[str, str]:
    """What the optional scores depend on, of those that were taken."""
    said = {
        "ms-ssim": {"ms_ssim_y": "five scales, windows inside the frame, on the same luma"},
        "vessels": {
            "vessels": f"green channel over its background; oriented second derivatives of Gaussians, {ORIENTATIONS} "
            f"directions, sigma {', '.join(map(str, SIGMAS))} pixels in a field of {REFERENCE_WIDTH}; a vessel is what "
            f"exceeds the level of the strongest {VESSEL_SHARE:.0%} of the photograph's field, without specks",
            "vessel_dice": "vessels of the result and of the photograph, in the field of view",
            "vessel_thin": f"share found of the photograph's centre lines at most {THIN:g} pixels wide",
            "label_dice, label_auc, label_thin": "the same and the area under the ROC curve against manual labels",
        },
        "spectrum": {
            "sharpness": "power over the photograph's in the octave above the input's Nyquist frequency; Hann window, "
            "inner square of the field, on the same luma"
        },
        "coverage": {
            "coverage": f"share of the values in the field of view, RGB pooled, within {Z:.3f} calibrated standard "
            f"deviations of the mean of samples, where something was sampled; {LEVEL:.0%} is stated",
        },
        "st-lpips": {"st_lpips": "ST-LPIPS, AlexNet, weights of stlpips_pytorch 0.0.2, mean of the map"},
        "lpips": {"lpips_alex": "LPIPS 0.1, AlexNet, through torchmetrics, whole frame"},
    }
    return {key: text for metric in metrics for key, text in said[metric].items()}


def _plain(intervals: dict[str, dict[str, Interval]]) -> dict[str, dict[str, list[float]]]:
    """[mean, low, high] by method and score; what is not finite is left out."""
    return {
        method: {name: [i.mean, i.low, i.high] for name, i in scores.items() if math.isfinite(i.mean)}
        for method, scores in intervals.items()
    }


def _finite(scores: Scores) -> dict[str, float | str | None]:
    return {name: "inf" if value is not None and math.isinf(value) else value for name, value in asdict(scores).items()}
