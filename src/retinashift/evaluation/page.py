"""The report as one HTML page that needs nothing else: tables, plots, crops. It loads no script, font or picture."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from retinashift.evaluation.gallery import (
    AGREED,
    BRIGHTEST_ERROR,
    CROP,
    INVENTED,
    MISSED,
    Exhibit,
    Gallery,
    error_colours,
)
from retinashift.evaluation.intervals import Interval
from retinashift.evaluation.metrics import COST
from retinashift.evaluation.plots import COLOURS, curve_plot, strip_plot
from retinashift.evaluation.report import Report
from retinashift.evaluation.scores import Score
from retinashift.evaluation.spectrum import BANDS
from retinashift.imaging.files import replace_file

BETTER = {"more": "more is better", "less": "less is better", "none": "neither more nor less is better"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff}
body{max-width:1240px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}p{max-width:60rem;margin:.4rem 0}
.note{color:#556070;font-size:.9rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.86rem}
th,td{padding:.25rem .55rem;text-align:right;border-bottom:1px solid #e3e7ec;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #1c2430;vertical-align:bottom}
td small{display:block;color:#6b7684;font-size:.75rem}
td.best{font-weight:650}td.gain{color:#0f6b3c}td.loss{color:#a8321a}
svg{font:12px system-ui,sans-serif;max-width:100%;height:auto}
svg .t{font-size:13px;font-weight:600}svg .g{stroke:#e3e7ec}
.scroll+.scroll{margin-top:1rem}
.plots{display:flex;flex-wrap:wrap;gap:1.2rem 2rem}
.crops td,.crops th{border:0;padding:.15rem;text-align:center;white-space:normal;font-weight:500;font-size:.82rem}
.crops th:first-child{text-align:right;padding-right:.6rem;color:#556070}
.crops img{width:clamp(104px,calc((min(100vw,1240px) - 120px)/var(--across) - 6px),180px)}
.crops img{display:block;image-rendering:pixelated;border-radius:3px}
.key{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin:0 .3em 0 1em}
.key{vertical-align:-.1em;border:1px solid #999}
details{margin:1.2rem 0}summary{cursor:pointer;font-weight:600}
@media print{details{break-inside:avoid}}
"""


def save_html(report: Report, gallery: Gallery, path: str | Path, title: str) -> None:
    """Write the page, whole or not at all; one that exists is replaced.

    Args:
        report: of `evaluate`.
        gallery: whose `add` was given to `evaluate`.
        path: of the page.
        title: its heading, such as the name of the test set.
    """
    replace_file(Path(path), render_html(report, gallery, title).encode())


def render_html(report: Report, gallery: Gallery, title: str) -> str:
    """The page as text. Whatever is a name is escaped."""
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(report.methods)}
    count, protocol = len(report.images), report.protocol()
    intro = (
        f"{count} photograph{'s' if count > 1 else ''}, x{report.scale}, degradation {protocol['degradation']}, "
        f"seeds {', '.join(map(str, report.seeds))}. Made by RetinaShift {protocol['versions']['retinashift']}."
    )
    body = [
        f"<h1>{escape(title)}</h1><p class=note>{escape(intro)} For research, not for diagnosis.</p>",
        _means(report),
        _differences(report),
        _subgroups(report),
        _strips(report, colours),
        _spectrum(report, gallery, colours),
        *([_crops(report, gallery)] if gallery.exhibits else []),
        _rows(report),
        _protocol(report),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    head = f"<head>{head}<style>{_STYLE}</style></head>"
    return f'<!doctype html><html lang="en">{head}<body>{"".join(body)}</body></html>'


def _means(report: Report) -> str:
    legend = " ".join(f"{score.heading}: {score.note}." for score in report.scores() if score.heading and score.note)
    return (
        "<h2>Means</h2><p class=note>Small: 95 % bootstrap interval over photographs. Bold: the best of a column. "
        f"fov: in the field of view. {escape(legend)}</p>"
        + "".join(_means_table(report, half) for half in _halves(report))
    )


def _means_table(report: Report, columns: list[Score]) -> str:
    means, intervals = report.means(), report.intervals()
    best = {column.name: _best(column, [mean[column.name] for mean in means.values()]) for column in columns}

    def cell(name: str, column: Score) -> str:
        value = means[name][column.name]
        mark = ' class="best"' if value is not None and value == best[column.name] else ""
        return f"<td{mark}>{column.text(means[name])}{_between(column, intervals[name].get(column.name))}</td>"

    return _table(columns, [([name], [cell(name, column) for column in columns]) for name in means])


def _differences(report: Report) -> str:
    halves = ([column for column in half if column.better != "none"] for half in _halves(report))
    tables = [_differences_table(report, half) for half in halves if half]
    if len(report.methods) == 1:
        return ""
    return (
        f"<h2>{escape(report.compared_with)} less the others</h2><p class=note>Differences paired by photograph, with "
        "their 95 % interval. Green: better throughout the interval; red: worse; black: neither. With fewer "
        "than ten photographs the intervals are too narrow.</p>" + "".join(tables)
    )


def _differences_table(report: Report, columns: list[Score]) -> str:
    rows = report.differences().items()
    return _table(columns, [([f"less {name}"], [_gain(column, own, True) for column in columns]) for name, own in rows])


def _subgroups(report: Report) -> str:
    """The differences to the first method that is not nearest, in each subgroup."""
    columns = [score for half in _halves(report) for score in half if score.plotted and score.better != "none"]
    plain = next((name for name in report.methods if name not in ("nearest", report.compared_with)), None)
    groups = report.subgroups() if plain is not None else {}
    if not groups:
        return ""
    rows = [
        ([name, str(len(group.images))], [_gain(column, group.differences()[plain or ""], False) for column in columns])
        for name, group in groups.items()
    ]
    heading = f"<h2>Subgroups</h2><p class=note>{escape(report.compared_with)} less {escape(plain or '')}, paired.</p>"
    return heading + _table(columns, rows, ("subgroup", "photographs"))


def _gain(column: Score, scores: Mapping[str, Interval], coloured: bool) -> str:
    """The cell of a difference."""
    gain = scores.get(column.name)
    if gain is None or not math.isfinite(gain.mean):
        return "<td>-</td>"
    worst, finest = sorted((gain.low, gain.high) if column.better == "more" else (-gain.low, -gain.high))
    mark = ' class="gain"' if worst > 0 else ' class="loss"' if finest < 0 else ""
    return f"<td{mark if coloured else ''}>{gain.mean:+.{column.decimals}f}{_between(column, gain)}</td>"


def _halves(report: Report) -> list[list[Score]]:
    """The columns of the two tables, so that each fits a page; an empty one is left out."""
    halves = ([score for score in report.scores(which) if score.heading] for which in ("fidelity", "detail"))
    return [half for half in halves if half]


def _strips(report: Report, colours: dict[str, str]) -> str:
    intervals = report.intervals()
    plots = []
    for score in report.scores():
        if score.plotted:
            values = {name: [v for row in report.of(name) if (v := row[score.name]) is not None] for name in colours}
            means = {name: found[score.name] for name, found in intervals.items() if score.name in found}
            plots.append(strip_plot(f"{score.heading} ({BETTER[score.better]})", values, means, colours))
    return (
        "<h2>Photographs</h2><p class=note>A stroke is a photograph, the disk their mean, the bar its interval.</p>"
        f"<div class=plots>{''.join(plots)}</div>"
    )


def _spectrum(report: Report, gallery: Gallery, colours: dict[str, str]) -> str:
    if not gallery.power:
        return ""
    frequency = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    # the geometric mean: a ratio of 2 and one of 1/2 are equally far off
    curves = {name: np.exp(np.log(np.maximum(power, 1e-9)).mean(0)) for name, power in gallery.power.items()}
    plot = curve_plot(
        "Power of the result over the photograph's", frequency.tolist(),
        {name: curve.tolist() for name, curve in curves.items()}, colours,
        x_label="cycles a pixel", y_range=(0.0, 1.6), marks={0.5 / report.scale: "input's limit"},
    )  # fmt: skip
    return (
        "<h2>Sharpness</h2><p class=note>1 is as much detail as the photograph has; below is blur, above is noise or "
        "invention. It does not say that the detail is in its place.</p>" + plot
    )


def _crops(report: Report, gallery: Gallery) -> str:
    scale_bar = error_colours(np.linspace(0, BRIGHTEST_ERROR, 96)[None].repeat(10, 0))
    parts = [
        f"<h2>Crops</h2><p class=note>{CROP} pixels of the photograph, where bicubic errs most; samples of the first "
        f"seed. Error: mean over channels, {_image(scale_bar, 'colours', 'width:96px;display:inline')} 0 to "
        f"{BRIGHTEST_ERROR} grey levels. Vessels:{_key(AGREED)}found in both{_key(MISSED)}lost"
        f"{_key(INVENTED)}not in the photograph.</p>"
    ]
    parts += [_exhibit(report, exhibit) for image, exhibit in gallery.exhibits.items() if image in gallery.shown]
    if worst := gallery.worst_exhibits():
        parts.append("<h2>Worst photographs</h2><p class=note>Those whose last method gains least over bicubic.</p>")
        parts += [_exhibit(report, exhibit, f", gain {exhibit.gain:+.2f} dB") for exhibit in worst]
    return "".join(parts)


def _exhibit(report: Report, exhibit: Exhibit, note: str = "") -> str:
    names = [name for name in report.methods if name in exhibit.panels and name != "nearest"]
    panels = [exhibit.panels[name] for name in names]
    psnr = [f"<br><small>{p.psnr:.2f} dB in the field</small>" if p.psnr is not None else "" for p in panels]
    heads = "".join(f"<th>{escape(name)}{text}</th>" for name, text in zip(names, psnr, strict=True))
    lines = [f"<tr><th></th><th>input</th>{heads}<th>photograph</th></tr>"]
    pictures = [exhibit.lr, *(panel.picture for panel in panels), exhibit.hr]
    lines.append(_picture_row("picture", pictures))
    lines.append(_picture_row("error", [None, *(panel.error for panel in panels), None]))
    if exhibit.hr_vessels is not None:
        lines.append(_picture_row("vessels", [None, *(panel.vessels for panel in panels), exhibit.hr_vessels]))
    row, column = exhibit.place
    return (
        f"<h3>{escape(exhibit.image)} <small class=note>at {column}, {row}{note}</small></h3>"
        f"<div class=scroll><table class=crops style='--across:{len(pictures)}'>{''.join(lines)}</table></div>"
    )


def _picture_row(what: str, pictures: Sequence[np.ndarray | None]) -> str:
    cells = "".join(f"<td>{'' if picture is None else _image(picture, what)}</td>" for picture in pictures)
    return f"<tr><th>{what}</th>{cells}</tr>"


def _rows(report: Report) -> str:
    columns = [score for score in report.scores() if score.heading]
    rows = [
        (
            [f"{row.image}{' (trained on)' if row.image in report.trained_on else ''}", row.method],
            [f"<td>{column.text(row.scores)}</td>" for column in columns],
        )
        for row in report.rows
    ]
    return f"<details><summary>Every photograph</summary>{_table(columns, rows, ('photograph', 'method'))}</details>"


def _protocol(report: Report) -> str:
    lines = [
        f"<tr><td>{escape(str(key))}</td><td style='text-align:left;white-space:normal'>{escape(_say(value))}</td></tr>"
        for key, value in report.protocol().items()
    ]
    return f"<details open><summary>Protocol</summary><table>{''.join(lines)}</table></details>"


def _table(
    columns: list[Score], rows: Sequence[tuple[list[str], list[str]]], first: tuple[str, ...] = ("method",)
) -> str:
    """Rows are names, which are escaped, and cells, which are not."""
    heads = "".join(f"<th>{escape(text)}</th>" for text in (*first, *(column.heading for column in columns)))
    lines = [
        f"<tr>{''.join(f'<td>{escape(name)}</td>' for name in names)}{''.join(cells)}</tr>" for names, cells in rows
    ]
    return f"<div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _best(column: Score, values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or column.better == "none" or len(set(known)) == 1:
        return None
    return max(known) if column.better == "more" else min(known)


def _between(column: Score, interval: Interval | None) -> str:
    if interval is None or not math.isfinite(interval.mean) or column in COST:
        return ""
    return f"<small>{interval.low:.{column.decimals}f} to {interval.high:.{column.decimals}f}</small>"


def _say(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _key(colour: tuple[int, int, int]) -> str:
    return f'<span class=key style="background:rgb{colour}"></span>'


def _image(pixels: np.ndarray, alt: str, style: str = "") -> str:
    """A PNG inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{source}">'
