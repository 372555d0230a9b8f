"""What the benchmark found: scores by photograph and method, means, intervals, differences, and the protocol."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from retinashift import __version__
from retinashift.evaluation.metrics import DEFAULT_METRICS, METRICS, mean_scores, scores_of
from retinashift.evaluation.scores import Score, Scores, weighted
from retinashift.evaluation.similarity import fidelity
from retinashift.imaging.degradation.bicubic import Bicubic
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.files import replace_file

THIRDS = ("lowest", "middle", "highest")
BICUBIC = Bicubic()  # the degradation of the published scores
RESAMPLES, COVERAGE = 10_000, 0.95  # of bootstrap intervals


def drawn_inputs(degradation: Degradation) -> dict[str, Any]:
    """How inputs are made, for a protocol: the degradation; of a random one also its seed and ranges."""
    drawn = {"degradation_seed": "0 and the number of the photograph", "degradation_ranges": asdict(degradation)}
    return {"degradation": degradation.kind, **({} if degradation.exact else drawn)}


class Interval(NamedTuple):
    """A mean and the bootstrap interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0) -> Interval:
    """Mean with its 95 % interval over photographs drawn again, with replacement.

    The draws depend on the number of values and the seed alone, so the intervals of methods over one set are paired.

    Args:
        values: at least one; if one is infinite, the interval is nan throughout.
        weights: of the values, at least 0, some above, else ValueError; None weighs all the same.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0)
    >>> bootstrap_mean([0.0, 1.0], [1, 3]).mean
    0.75
    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if not w.sum():
        raise ValueError("no value was given; a mean needs at least one")
    if not np.isfinite(x).all():
        return Interval(math.nan, math.nan, math.nan)
    draws = np.random.default_rng(seed).integers(0, x.size, (RESAMPLES, x.size))
    drawn = w[draws].sum(1)  # 0 where only photographs without weight were drawn
    means = (w * x)[draws].sum(1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float((w * x).sum() / w.sum()), float(low), float(high))


@dataclass(frozen=True)
class Row:
    """One photograph and method; the mean over `seeds`."""

    image: str
    method: str
    seeds: tuple[int, ...]  # empty for a method that is not stochastic
    scores: Scores
    groups: Mapping[str, str | float] = field(default_factory=dict)
    """What the photograph belongs to, by kind of subgroup: a name, or a number of which thirds are made."""


@dataclass(frozen=True)
class Report:
    """Rows in the order of photographs, then methods."""

    scale: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = DEFAULT_METRICS
    reference: str = ""
    """Method that the others are compared with, pair by pair; "" is the first stochastic one, else the last."""
    degradation: Degradation = BICUBIC  # how the inputs were made
    failed: tuple[str, ...] = ()  # photographs that could not be scored, and are in no row
    trained_on: tuple[str, ...] = ()  # photographs that a checkpoint says it learned from: their scores say nothing

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.image for row in self.rows))

    @property
    def compared_with(self) -> str:
        """Name of the reference method."""
        return self.reference or next((row.method for row in self.rows if row.seeds), self.methods[-1])

    def scores(self, table: Literal["fidelity", "detail"] | None = None) -> list[Score]:
        """The scores that some method has, in the order of the tables."""
        means = self.means().values()
        return [s for s in scores_of(self.metrics, table) if any(mean[s.name] is not None for mean in means)]

    def of(self, method: str) -> list[Scores]:
        """A method's scores by photograph, in their order."""
        return [row.scores for row in self.rows if row.method == method]

    def means(self) -> dict[str, Scores]:
        """Mean over photographs by method, in the order of methods; one infinite score makes it infinite."""
        return {name: mean_scores(self.of(name), scores_of(self.metrics)) for name in self.methods}

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Mean and bootstrap interval by method and score, over the photographs that have the score."""
        return {name: self._intervals(self.of(name), self.of(name)) for name in self.methods}

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Reference method less each other, by score: paired by photograph, over those that have both values."""
        ours = self.of(self.compared_with)
        return {
            name: self._intervals([_less(a, b) for a, b in zip(ours, self.of(name), strict=True)], ours)
            for name in self.methods
            if name != self.compared_with
        }

    def subgroups(self) -> "dict[str, Report]":
        """The report of each subgroup of photographs, by a name such as "brightness, lowest third".

        Numbers are split into thirds where there are six photographs or more; one group of all is left out.
        """
        groups = {row.image: row.groups for row in self.rows}
        members: dict[str, list[str]] = {}
        for kind in dict.fromkeys(kind for own in groups.values() for kind in own):
            known = {image: own[kind] for image, own in groups.items() if kind in own}
            numbers = sorted((value, image) for image, value in known.items() if isinstance(value, float))
            if len(numbers) >= 6:
                parts = np.array_split([image for _, image in numbers], 3)
                members |= {f"{kind}, {name} third": part.tolist() for name, part in zip(THIRDS, parts, strict=True)}
            for image, value in known.items():
                if isinstance(value, str):
                    members.setdefault(f"{kind}, {value}", []).append(image)
        return {
            name: replace(self, rows=tuple(row for row in self.rows if row.image in images))
            for name, images in members.items()
            if len(images) < len(groups)
        }

    def protocol(self) -> dict[str, Any]:
        """What the scores depend on, in words and versions; of a random degradation also the ranges it drew from."""
        metrics = [fidelity, *(METRICS[name] for name in self.metrics)]
        return {
            "scale": self.scale,
            **drawn_inputs(self.degradation),
            "photographs": len(self.images),
            "failed": list(self.failed),
            "trained_on": list(self.trained_on),
            "crop": f"right and bottom, to a multiple of {self.scale}",
            "pixels": "8 bit, as the methods return them; whole size, no border left out",
            "seeds": list(self.seeds),
            **{score.name: score.note for metric in metrics for score in metric.scores if score.note},
            **{key: text for metric in metrics for key, text in metric.protocol.items()},
            "seconds": "cpu_seconds of the process, wall_seconds by the clock, for each photograph; results read from "
            "a folder have none",
            "means": 'over seeds, then over photographs that have the score; "inf" where pictures are equal, null '
            "where there is nothing to measure",
            "intervals": f"{COVERAGE:.0%} percentile bootstrap over photographs, {RESAMPLES} draws, seed 0",
            "differences": f"{self.compared_with} less the method, paired by photograph",
            "versions": {"retinashift": __version__}
            | {name: version(name) for name in ("torch", "numpy", "pillow", "scipy", "scikit-image")},
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data: `protocol`, `means`, `intervals` and `differences` by method, `subgroups`, `rows`.

        Infinite numbers are the string "inf": JSON has none. What was not measured is null, or left out.
        """

        def found(report: Report) -> dict[str, Any]:
            return {"intervals": report.intervals(), "differences": report.differences()}

        groups = self.subgroups().items()
        rows = [{"image": row.image, "method": row.method, "seeds": list(row.seeds), **row.scores} for row in self.rows]
        return _plain({
            "protocol": self.protocol(),
            "means": self.means(),
            **found(self),
            "subgroups": {name: {"photographs": len(group.images), **found(group)} for name, group in groups},
            "rows": rows,
        })  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write `to_json` as a file, whole or not at all; one that exists is replaced."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        replace_file(Path(path), (text + "\n").encode())

    def save_csv(self, path: str | Path) -> None:
        """Write one line for each photograph and method; empty where there is no score. As `save` otherwise."""
        text = io.StringIO()
        names = [score.name for score in scores_of(self.metrics)]
        writer = csv.DictWriter(text, ["image", "method", "seeds", *names], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            about = {"image": row.image, "method": row.method, "seeds": " ".join(map(str, row.seeds))}
            writer.writerow(about | {name: row.scores.get(name) for name in names})
        replace_file(Path(path), text.getvalue().encode())

    def table(self, which: Literal["fidelity", "detail"] = "fidelity") -> list[list[str]]:
        """The means as text, heading first. "fov" is the field of view; "-" is not measured."""
        columns = [score for score in self.scores(which) if score.heading]
        lines = [[name, *(column.text(mean[column.name]) for column in columns)] for name, mean in self.means().items()]
        return [["method", *(column.heading for column in columns)], *lines]

    def _intervals(self, rows: Sequence[Scores], counts: Sequence[Scores]) -> dict[str, Interval]:
        """By score, of rows that are weighted by other rows."""
        found = {score.name: weighted(score, rows, counts) for score in self.scores()}
        return {name: bootstrap_mean(values, weights) for name, (values, weights) in found.items() if sum(weights)}


def _less(a: Scores, b: Scores) -> Scores:
    """The differences of the scores that both have."""
    return {name: x - y for name, x in a.items() if x is not None and (y := b.get(name)) is not None}


def _plain(value: Any) -> Any:
    """Intervals as [mean, low, high], finite ones alone, and infinite scores as "inf", at any depth."""
    if isinstance(value, Mapping):
        finite = {name: own for name, own in value.items() if not isinstance(own, Interval) or math.isfinite(own.mean)}
        return {name: _plain(own) for name, own in finite.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return "inf" if value == math.inf else value
