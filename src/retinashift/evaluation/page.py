"""The report as one HTML page that needs nothing else: tables, plots, crops. It loads no script, font or picture.

How it looks is in the template `page.html`; this module says what it shows. A crop shows each result beside the
photograph, its errors, and the vessels it lost or invented.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined

from retinashift.evaluation.metrics import COST
from retinashift.evaluation.report import Interval, Report
from retinashift.evaluation.scores import Result, Score, Subject
from retinashift.evaluation.similarity import BANDS, reference_power, result_power
from retinashift.evaluation.vessels import reference_vessels, result_vessels
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.figures import busiest, changed, round_ticks, shown
from retinashift.imaging.files import encode_image

CROP = 120  # side of a crop in pixels of the photograph
BRIGHTEST_ERROR = 24  # grey levels that the error map shows as its brightest colour
AGREED, MISSED, INVENTED = (228, 228, 228), (64, 132, 255), (255, 138, 30)
"""Colours of vessels found in both, in the photograph alone, in the result alone."""
_VESSELS = np.array([(18, 18, 18), INVENTED, MISSED, AGREED], np.uint8)
_STOPS = np.array([(0, 0, 8), (60, 15, 110), (170, 40, 110), (245, 110, 60), (255, 240, 190)], np.float64)
COLOURS = ("#8a8f98", "#5f6b7a", "#3b4754", "#c2410c", "#0f766e", "#6d28d9", "#b45309", "#be185d", "#1d4ed8", "#4d7c0f")
HIGHEST_POWER = 1.6  # end of the axis of relative power; curves beyond it run along the edge


@dataclass(frozen=True)
class Panel:
    """What a method made of a crop: three pictures, (CROP, CROP, 3) uint8."""

    picture: np.ndarray
    error: np.ndarray
    vessels: np.ndarray | None
    psnr: float | None  # of the whole field of view, dB


@dataclass
class Exhibit:
    """One photograph's crop."""

    image: str
    window: tuple[slice, slice]  # rows and columns
    lr: np.ndarray  # upscaled by repetition, (CROP, CROP, 3) uint8
    reference: Panel
    panels: dict[str, Panel] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """PSNR of the last method less PSNR of bicubic, or of the first method, in the field of view, in dB."""
        psnr = {name: panel.psnr for name, panel in self.panels.items() if panel.psnr is not None}
        values = list(psnr.values())
        return values[-1] - psnr.get("bicubic", values[0]) if values else math.inf


@dataclass
class Gallery:
    """Collects exhibits of some images and of the worst, and the power spectra of all. Give `add` to `evaluate`.

    The crop lies where plain bicubic errs most inside the field: not chosen by eye, and the same for every method.
    """

    shown: frozenset[str]  # names of the images that are shown whatever their scores
    worst: int = 5  # number of photographs shown, those with the least `Exhibit.gain`
    exhibits: dict[str, Exhibit] = field(default_factory=dict)
    power: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """By method: the power relative to the photograph's, (BANDS,), one for each photograph."""

    def add(self, result: Result) -> None:
        """Keep what the page shows of a result: its power where "spectrum" was measured, vessels likewise."""
        subject, with_vessels = result.subject, "vessel_dice" in result.scores
        power, reference = result.derive(result_power), subject.derive(reference_power)
        if power is not None and reference is not None and "sharpness" in result.scores:
            self.power.setdefault(result.method, []).append(power / np.maximum(reference, 1e-9))
        if subject.image not in self.exhibits:
            kept = self.shown | {exhibit.image for exhibit in self.worst_exhibits()}
            self.exhibits = {image: exhibit for image, exhibit in self.exhibits.items() if image in kept}
            error = changed(shown(enlarge(subject.lr, subject.scale, "bicubic")), shown(subject.hr))
            # a pixel outside costs more than any error: the edge of the aperture is sharper than any vessel
            window = busiest(np.where(subject.field, error, -255), CROP)
            truth = subject.derive(reference_vessels).vessels if with_vessels else None
            lr = shown(enlarge(subject.lr, subject.scale, "nearest")[window])
            original = _panel(subject, window, subject.hr, truth, None)
            self.exhibits[subject.image] = Exhibit(subject.image, window, lr, original)
        exhibit, psnr = self.exhibits[subject.image], result.scores.get("psnr_rgb_fov")
        vessels = result.derive(result_vessels).vessels if with_vessels else None
        exhibit.panels[result.method] = _panel(subject, exhibit.window, result.sr, vessels, psnr)

    def worst_exhibits(self) -> list[Exhibit]:
        """The `worst` exhibits, least gain first."""
        return sorted(self.exhibits.values(), key=lambda exhibit: exhibit.gain)[: self.worst]


def error_colours(error: np.ndarray) -> np.ndarray:
    """(H, W) grey levels -> (H, W, 3) uint8, black for none to pale yellow from `BRIGHTEST_ERROR` on."""
    at = np.clip(error / BRIGHTEST_ERROR, 0, 1) * (len(_STOPS) - 1)
    channels = [np.interp(at, np.arange(len(_STOPS)), _STOPS[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _panel(
    subject: Subject, window: tuple[slice, slice], pixels: np.ndarray, vessels: np.ndarray | None, psnr: float | None
) -> Panel:
    picture, hr = shown(pixels[window]), shown(subject.hr[window])
    error = error_colours(np.abs(picture.astype(int) - hr).mean(2))
    if vessels is not None:
        truth = subject.derive(reference_vessels).vessels[window]
        vessels = _VESSELS[2 * truth.astype(int) + vessels[window]]
    return Panel(picture, error, vessels, psnr)


@dataclass(frozen=True)
class Axis:
    """A linear axis of a plot; `start` and `end` are the places of `low` and `high` in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Place of a value, which is held inside the axis."""
        inside = min(max(value, self.low), self.high)
        return round(self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers."""
        _, (_, step, *_) = round_ticks(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def render_html(report: Report, gallery: Gallery, title: str) -> str:
    """The page as text, of what `evaluate` returned and gave to `Gallery.add`; whatever is a name is escaped."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    page.filters["png"] = _png
    page.tests["uncertain"] = lambda score: score not in COST
    frequencies = ((np.arange(BANDS) + 0.5) / (2 * BANDS)).tolist()
    halves = [[score for score in report.scores(half) if score.heading] for half in ("fidelity", "detail")]
    return page.from_string(files(__package__).joinpath("page.html").read_text("utf-8")).render(
        report=report, gallery=gallery, title=title, best=best, verdict=verdict,
        protocol=report.protocol(), means=report.means(), intervals=report.intervals(),
        differences=report.differences(),
        halves=[half for half in halves if half],  # two tables, so that each fits a page
        plain=next((name for name in report.methods if name not in ("nearest", report.compared_with)), None),
        crop_side=CROP, agreed=AGREED, missed=MISSED, invented=INVENTED, brightest=BRIGHTEST_ERROR,
        error_key=error_colours(np.linspace(0, BRIGHTEST_ERROR, 96)[None].repeat(10, 0)),
        colours={name: COLOURS[number % len(COLOURS)] for number, name in enumerate(report.methods)},
        strips=[(score, *plot) for score in report.scores() if score.plotted and (plot := strips_of(report, score))],
        # the geometric mean: a ratio of 2 and one of 1/2 are equally far off
        power={name: np.exp(np.log(np.maximum(p, 1e-9)).mean(0)).tolist() for name, p in gallery.power.items()},
        frequencies=frequencies, across=Axis(frequencies[0], frequencies[-1], 46, 550),
        up=Axis(0, HIGHEST_POWER, 300, 30),
    )  # fmt: skip


def strips_of(report: Report, score: Score) -> tuple[dict[str, list[float]], Axis] | None:
    """Finite values by method, and an axis with a little air on both sides; None where there are none."""
    every = {name: [row[score.name] for row in report.of(name)] for name in report.methods}
    finite = {name: [v for v in values if v is not None and math.isfinite(v)] for name, values in every.items()}
    drawn = {name: values for name, values in finite.items() if values}
    if not drawn:
        return None
    low, high = (end(map(end, drawn.values())) for end in (min, max))
    air = 0.05 * (high - low) or max(abs(low) * 0.01, 1e-3)
    return drawn, Axis(low - air, high + air, 150, 456)


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
    return f"data:image/png;base64,{base64.b64encode(encode_image('page.png', pixels)).decode()}"
