"""Plots as inline SVG: strips of photographs with their mean, and curves. Nothing is loaded; no library is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from retinashift.evaluation.intervals import Interval

COLOURS = ("#8a8f98", "#5f6b7a", "#3b4754", "#c2410c", "#0f766e", "#6d28d9", "#b45309", "#be185d", "#1d4ed8", "#4d7c0f")
_LABEL, _WIDTH, _ROW = 150, 470, 24


def strip_plot(
    title: str, values: Mapping[str, Sequence[float]], means: Mapping[str, Interval], colours: Mapping[str, str]
) -> str:
    """One row a method: a mark for each photograph, the mean as a disk, its interval as a bar.

    Args:
        title: above the plot.
        values: by method; finite ones are drawn.
        means: by method, with intervals.
        colours: by method.
    """
    drawn = {name: [v for v in given if np.isfinite(v)] for name, given in values.items()}
    drawn = {name: given for name, given in drawn.items() if given}
    if not drawn:
        return ""
    every = [v for given in drawn.values() for v in given]
    low, high = _stretch(min(every), max(every))
    place = _scale(low, high, _LABEL, _WIDTH - 14)
    height = 34 + _ROW * len(drawn) + 22
    bottom = height - 22
    parts = [f'<text x="0" y="14" class="t">{escape(title)}</text>', *_x_ticks(low, high, place, 26, bottom)]
    for number, (name, given) in enumerate(drawn.items()):
        y = 34 + _ROW * number + _ROW / 2
        colour = colours[name]
        parts.append(f'<text x="{_LABEL - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>')
        parts += [
            f'<line x1="{place(v):.1f}" x2="{place(v):.1f}" y1="{y - 6:.1f}" y2="{y + 6:.1f}" stroke="{colour}" '
            'stroke-opacity=".35"/>'
            for v in given
        ]
        if name in means and np.isfinite(means[name].mean):
            mean = means[name]
            parts.append(
                f'<line x1="{place(mean.low):.1f}" x2="{place(mean.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="{colour}" stroke-width="3"/><circle cx="{place(mean.mean):.1f}" cy="{y:.1f}" r="5" '
                f'fill="{colour}"><title>{escape(name)}: {mean.mean:.4g} ({mean.low:.4g} to {mean.high:.4g})</title>'
                "</circle>"
            )
    return _svg(parts, _WIDTH, height)


def curve_plot(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    *,
    x_label: str,
    y_range: tuple[float, float],
    marks: Mapping[float, str] = {},
) -> str:
    """Lines over a common axis, the y axis linear; what is beyond its range runs along the edge.

    Args:
        title, x_label: above and below the plot.
        x: ascending.
        curves: by method, each as long as x.
        colours: by method.
        y_range: lowest and highest y.
        marks: vertical lines with a text.
    """
    width, top, bottom, left = 720, 30, 300, 46
    across = _scale(x[0], x[-1], left, width - 170)
    up = _scale(*y_range, bottom, top)
    parts = [
        f'<text x="0" y="14" class="t">{escape(title)}</text>',
        *_x_ticks(x[0], x[-1], across, top, bottom),
        f'<text x="{across((x[0] + x[-1]) / 2):.0f}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for tick in _ticks(*y_range):
        parts.append(
            f'<line x1="{left}" x2="{width - 170}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" class="g"/>'
            f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for at, text in marks.items():
        parts.append(
            f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{top}" y2="{bottom}" stroke="#333" '
            f'stroke-dasharray="4 3"/><text x="{across(at) + 4:.1f}" y="{top + 12}">{escape(text)}</text>'
        )
    for number, (name, y) in enumerate(curves.items()):
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, np.clip(y, *y_range), strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        at = top + 12 + 20 * number
        parts.append(
            f'<line x1="{width - 158}" x2="{width - 138}" y1="{at - 4}" y2="{at - 4}" stroke="{colours[name]}" '
            f'stroke-width="3"/><text x="{width - 132}" y="{at}">{escape(_short(name))}</text>'
        )
    return _svg(parts, width, bottom + 42)


def _svg(parts: Sequence[str], width: int, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def _x_ticks(low: float, high: float, place: Callable[[float], float], top: int, bottom: int) -> list[str]:
    return [
        f'<line x1="{place(tick):.1f}" x2="{place(tick):.1f}" y1="{top}" y2="{bottom}" class="g"/>'
        f'<text x="{place(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in _ticks(low, high)
    ]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    rough = (high - low) / 5
    power = 10 ** np.floor(np.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    return [float(f"{i * step:.10g}") for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _stretch(low: float, high: float) -> tuple[float, float]:
    """A little air on both sides, and some width where there is none."""
    air = 0.05 * (high - low) or max(abs(low) * 0.01, 1e-3)
    return low - air, high + air


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
