"""What the benchmark found: scores by photograph and method, means, intervals, differences, and the protocol."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retinashift import __version__
from retinashift.evaluation.intervals import COVERAGE, RESAMPLES, Interval, bootstrap_mean, paired_difference
from retinashift.evaluation.metrics import METRICS, default_metrics, mean_scores, scores_of, weighted
from retinashift.evaluation.scores import Score, Scores
from retinashift.evaluation.similarity import FIDELITY
from retinashift.imaging.degradation.bicubic import Bicubic
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.imaging.files import replace_file

THIRDS = ("lowest", "middle", "highest")
BICUBIC = Bicubic()
"""The degradation of the published scores."""


@dataclass(frozen=True)
class Row:
    """One photograph and method; the mean over `seeds`."""

    image: str
    method: str
    seeds: tuple[int, ...]
    """Empty for a method that is not stochastic."""
    scores: Scores
    groups: Mapping[str, str | float] = field(default_factory=dict)
    """What the photograph belongs to, by kind of subgroup: a name, or a number of which thirds are made."""


@dataclass(frozen=True)
class Report:
    """Rows in the order of photographs, then methods."""

    scale: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = field(default_factory=default_metrics)
    reference: str = ""
    """Method that the others are compared with, pair by pair; "" is the first stochastic one, else the last."""
    degradation: Degradation = BICUBIC
    """How the inputs were made."""
    failed: tuple[str, ...] = ()
    """Photographs that could not be scored, and are in no row."""
    trained_on: tuple[str, ...] = ()
    """Photographs that a checkpoint was trained on, as far as it states them: their scores say nothing."""

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
        found: dict[str, dict[str, Interval]] = {method: {} for method in self.methods}
        for method in self.methods:
            for score in self.scores():
                values, weights = weighted(self.of(method), score)
                if sum(weights):
                    found[method][score.name] = bootstrap_mean(values, weights)
        return found

    def differences(self) -> dict[str, dict[str, Interval]]:
        """Reference method less each other, by score: paired by photograph, over those that have both values."""
        found: dict[str, dict[str, Interval]] = {}
        ours = self.of(self.compared_with)
        for method in self.methods:
            if method == self.compared_with:
                continue
            found[method] = {}
            for score in self.scores():
                both = [
                    (a, b)
                    for a, b in zip(ours, self.of(method), strict=True)
                    if a.get(score.name) is not None and b.get(score.name) is not None
                ]
                (a, weights), (b, _) = (weighted([pair[side] for pair in both], score) for side in (0, 1))
                if sum(weights):
                    found[method][score.name] = paired_difference(a, b, weights)
        return found

    def subgroups(self) -> dict[str, Report]:
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
        """What the scores depend on, in words and versions."""
        metrics = [FIDELITY, *(METRICS[name] for name in self.metrics)]
        return {
            "scale": self.scale,
            "degradation": self.degradation.kind,
            **self._degradation(),
            "photographs": len(self.images),
            "failed": list(self.failed),
            "trained_on": list(self.trained_on),
            "crop": f"right and bottom, to a multiple of {self.scale}",
            "pixels": "8 bit, as the methods return them; whole size, no border left out",
            "seeds": list(self.seeds),
            **{key: text for metric in metrics for key, text in metric.protocol.items()},
            "seconds": "cpu_seconds of the process, wall_seconds by the clock, for each photograph; results read from "
            "a folder have none",
            "peak_mib": "of memory beyond what the process held before, for each photograph; where the system tells it",
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
        return {
            "protocol": self.protocol(),
            "means": {name: self._plain(scores) for name, scores in self.means().items()},
            "intervals": _plain_intervals(self.intervals()),
            "differences": _plain_intervals(self.differences()),
            "subgroups": {
                name: {
                    "photographs": len(group.images),
                    "intervals": _plain_intervals(group.intervals()),
                    "differences": _plain_intervals(group.differences()),
                }
                for name, group in self.subgroups().items()
            },
            "rows": [
                {"image": row.image, "method": row.method, "seeds": list(row.seeds)} | self._plain(row.scores)
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
        names = [score.name for score in scores_of(self.metrics)]
        writer.writerow(["image", "method", "seeds", *names])
        for row in self.rows:
            values = [row.scores.get(name) for name in names]
            seeds = " ".join(map(str, row.seeds))
            writer.writerow([row.image, row.method, seeds, *("" if v is None else repr(v) for v in values)])
        replace_file(Path(path), text.getvalue().encode())

    def table(self, which: Literal["fidelity", "detail"] = "fidelity") -> list[list[str]]:
        """The means as text, heading first. "fov" is the field of view; "-" is not measured."""
        columns = [score for score in self.scores(which) if score.heading]
        lines = [[name, *(column.text(mean) for column in columns)] for name, mean in self.means().items()]
        return [["method", *(column.heading for column in columns)], *lines]

    def _degradation(self) -> dict[str, object]:
        """The ranges that a random degradation drew from."""
        if self.degradation.exact:
            return {}
        ranges = asdict(self.degradation)
        return {"degradation_seed": "0 and the number of the photograph", "degradation_ranges": ranges}

    def _plain(self, scores: Scores) -> dict[str, float | str | None]:
        values = {score.name: scores.get(score.name) for score in scores_of(self.metrics)}
        return {name: "inf" if value is not None and math.isinf(value) else value for name, value in values.items()}


def _plain_intervals(intervals: dict[str, dict[str, Interval]]) -> dict[str, dict[str, list[float]]]:
    """[mean, low, high] by method and score; what is not finite is left out."""
    return {
        method: {name: [i.mean, i.low, i.high] for name, i in scores.items() if math.isfinite(i.mean)}
        for method, scores in intervals.items()
    }
