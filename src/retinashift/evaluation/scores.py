"""What is scored, and what a metric states about itself.

A metric is a function of one `Result` together with the facts that tables, pages and protocols need. To add one, write
the function under `metric(...)` in a file of this room and list it in `METRICS` (metrics.py): the command, its help,
the JSON, CSV and HTML reports and their protocol follow from the entry.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")
Scores = dict[str, float | None]
"""By name of the score. inf where pictures are equal; None where there is nothing to measure."""


@dataclass(frozen=True)
class Derives:
    """Keeps what was derived from it, so that metrics and pictures share one computation."""

    _derived: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def derive(self, function: Callable[[Any], T]) -> T:
        """`function(self)`, computed at the first call."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return self._derived[function]


@dataclass(frozen=True)
class Mark:
    """A lesion on which experts agree; lengths in pixels of the photograph."""

    kind: str  # type in the CSV, see `read_marks`
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Observed:
    """What experts marked on a photograph; None where nobody looked."""

    vessels: np.ndarray | None = None  # (H, W) bool
    lesions: tuple[Mark, ...] | None = None


@dataclass(frozen=True)
class Subject(Derives):
    """One photograph of a test set, the high-resolution reference, with the input that was made from it."""

    image: str  # its name
    hr: np.ndarray  # (H, W, 3) or (H, W), uint8
    lr: np.ndarray  # (H / scale, W / scale[, 3]), uint8
    field: np.ndarray  # field of view, (H, W) bool
    scale: int
    observed: Observed = Observed()


@dataclass(frozen=True)
class Estimate:
    """A result with the uncertainty of its values."""

    pixels: np.ndarray  # (H, W, 3) or (H, W), uint8
    sigma: np.ndarray  # standard deviation of the values, (H, W) float32 in shares of full scale, above 0


@dataclass(frozen=True)
class Result(Derives):
    """What a method made of a subject's input."""

    subject: Subject
    method: str
    sr: np.ndarray  # as `subject.hr`
    sigma: np.ndarray | None = None  # as in `Estimate`, where the method states it
    scores: Scores = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One number of a result, and how it is shown."""

    name: str  # key in JSON and CSV; "_fov" at its end: inside the field of view
    heading: str = ""  # of its column in tables; "" keeps it to the files
    decimals: int = 3
    better: Literal["more", "less", "none"] = "more"
    plotted: bool = False  # whether the page draws it for each photograph
    note: str = ""  # what it is and depends on, for the protocol and the legend of the page
    weight: str = ""  # name of the score that weights means over photographs: a share of marks counts every mark once

    def text(self, value: float | None, sign: Literal["", "+"] = "") -> str:
        """A value as tables print it, with "+" also where it is positive; "-" where there is none."""
        return "-" if value is None or math.isnan(value) else f"{value:{sign}.{self.decimals}f}"


def weighted(score: Score, rows: Sequence[Scores], counts: Sequence[Scores]) -> tuple[list[float], list[float]]:
    """Values of a score in the rows that have it, and what each counts: a score of the other rows, or 1."""
    values, weights = [], []
    for row, own in zip(rows, counts, strict=True):
        if (value := row.get(score.name)) is not None:
            values.append(value)
            weights.append(float(own.get(score.weight) or 0) if score.weight else 1.0)
    return values, weights


@dataclass(frozen=True)
class Metric:
    """Something to measure of each result.

    Args:
        scores: the numbers it gives, in the order of the columns.
        measure: values by the names of `scores`; one that is missing or None could not be measured.
        protocol: what the values depend on beyond the notes of the scores, by the key in the report.
        note: what it needs, for the help of the command.
        prepare: loads what it needs; ValueError, one line, where that is missing.
    """

    scores: tuple[Score, ...]
    measure: Callable[[Result], Mapping[str, float | None]]
    protocol: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    prepare: Callable[[], object] = lambda: None


def metric(*scores: Score, **facts: Any) -> Callable[[Callable[[Result], Scores]], Metric]:
    """Make a `Metric` of the function below, which measures these scores; `facts` are the other fields."""
    return lambda measure: Metric(scores, measure, **facts)
