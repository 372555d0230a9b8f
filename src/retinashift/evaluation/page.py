"""The report as one HTML page that needs nothing else: tables, plots, crops. It loads no script, font or picture.

How it looks is in the template `page.html`; this module says what it shows.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from retinashift.evaluation import gallery as exhibition
from retinashift.evaluation.gallery import BRIGHTEST_ERROR, Gallery, error_colours
from retinashift.evaluation.metrics import COST
from retinashift.evaluation.report import Interval, Report
from retinashift.evaluation.scores import Score
from retinashift.evaluation.spectrum import BANDS

COLOURS = ("#8a8f98", "#5f6b7a", "#3b4754", "#c2410c", "#0f766e", "#6d28d9", "#b45309", "#be185d", "#1d4ed8", "#4d7c0f")
HIGHEST_POWER = 1.6
"""End of the axis of relative power; curves beyond it run along the edge."""


@dataclass(frozen=True)
class Axis:
    """A linear axis of a plot."""

    low: float
    high: float
    start: float
    """Place of `low` in the drawing."""
    end: float

    def at(self, value: float) -> float:
        """Place of a value, which is held inside the axis."""
        inside = min(max(value, self.low), self.high)
        return round(self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers."""
        rough = (self.high - self.low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


@dataclass(frozen=True)
class Strips:
    """A plot with one row a method: a stroke for each photograph, the mean as a disk, its interval as a bar."""

    score: Score
    values: dict[str, list[float]]
    """By method; the finite ones."""
    axis: Axis


def render_html(report: Report, gallery: Gallery, title: str) -> str:
    """The page as text; whatever is a name is escaped.

    Args:
        report: of `evaluate`.
        gallery: whose `add` was given to `evaluate`.
        title: heading of the page, such as the name of the test set.
    """
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    page.filters["png"] = _png
    page.tests["uncertain"] = lambda score: score not in COST
    frequencies = ((np.arange(BANDS) + 0.5) / (2 * BANDS)).tolist()
    halves = [[score for score in report.scores(half) if score.heading] for half in ("fidelity", "detail")]
    return page.from_string(files(__package__).joinpath("page.html").read_text("utf-8")).render(
        report=report,
        gallery=gallery,
        exhibition=exhibition,
        title=title,
        protocol=report.protocol(),
        halves=[half for half in halves if half],  # two tables, so that each fits a page
        means=report.means(),
        intervals=report.intervals(),
        differences=report.differences(),
        plain=next((name for name in report.methods if name not in ("nearest", report.compared_with)), None),
        best=best,
        verdict=verdict,
        colours={name: COLOURS[number % len(COLOURS)] for number, name in enumerate(report.methods)},
        strips=[strips for score in report.scores() if score.plotted and (strips := strips_of(report, score))],
        frequencies=frequencies,
        # the geometric mean: a ratio of 2 and one of 1/2 are equally far off
        power={name: np.exp(np.log(np.maximum(p, 1e-9)).mean(0)).tolist() for name, p in gallery.power.items()},
        across=Axis(frequencies[0], frequencies[-1], 46, 550),
        up=Axis(0, HIGHEST_POWER, 300, 30),
        error_key=error_colours(np.linspace(0, BRIGHTEST_ERROR, 96)[None].repeat(10, 0)),
    )


def strips_of(report: Report, score: Score) -> Strips | None:
    """Values by method, on an axis with a little air on both sides; None where there are none."""
    every = {name: [row[score.name] for row in report.of(name)] for name in report.methods}
    finite = {name: [v for v in values if v is not None and math.isfinite(v)] for name, values in every.items()}
    drawn = {name: values for name, values in finite.items() if values}
    if not drawn:
        return None
    low, high = (end(value for values in drawn.values() for value in values) for end in (min, max))
    air = 0.05 * (high - low) or max(abs(low) * 0.01, 1e-3)
    return Strips(score, drawn, Axis(low - air, high + air, 150, 456))


def best(score: Score, values: Sequence[float | None]) -> float | None:
    """The best of several values; None where they are equal, or where neither more nor less is better."""
    known = [value for value in values if value is not None]
    if score.better == "none" or len(set(known)) < 2:
        return None
    return max(known) if score.better == "more" else min(known)


def verdict(score: Score, difference: Interval) -> str:
    """ "gain" or "loss" where that holds throughout the interval, else ""."""
    worst, finest = sorted((end if score.better == "more" else -end) for end in (difference.low, difference.high))
    return "gain" if worst > 0 else "loss" if finest < 0 else ""


def _png(pixels: np.ndarray) -> str:
    """The address of a PNG inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
