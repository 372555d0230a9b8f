"""Curves as a picture, drawn by Pillow, so that no plotting library is needed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID = (255, 255, 255), (28, 36, 48), (222, 226, 231)
COLOURS = ((29, 78, 216), (194, 65, 12), (15, 118, 110), (109, 40, 217))
_LEFT, _RIGHT, _UPPER, _LOWER = 90, 40, 70, 80  # margins in pixels


def draw_curves(curves: Mapping[str, Sequence[float]], *, across: str) -> np.ndarray:
    """Curves over 1, 2, 3, ..., from 0 to a round number that none exceeds; each has two values or more.

    >>> draw_curves({"sqrt(eta)": [0.1, 0.5, 0.99]}, across="step t").shape
    (640, 1200, 3)
    """
    longest = max(len(values) for values in curves.values())
    top, ticks = round_ticks(max(max(values) for values in curves.values()))
    points = {
        name: [(i / (len(values) - 1), value / top) for i, value in enumerate(values)]
        for name, values in curves.items()
    }
    steps = {t / (longest - 1): str(t + 1) for t in range(0, longest, max(1, longest // 15))}
    return _draw(points, (1200, 640), steps, {tick / top: f"{tick:g}" for tick in ticks}, across)


def draw_against(x: Sequence[float], curves: Mapping[str, Sequence[float]], *, across: str, up: str) -> np.ndarray:
    """Curves over shares, both axes from 0 to 1, with the diagonal on which they are equal: (720, 720, 3) uint8."""
    shares = {part / 5: f"{part / 5:.0%}" for part in range(6)}
    points = {name: list(zip(x, values, strict=True)) for name, values in curves.items()}
    return _draw(points, (720, 720), shares, shares, across, up, diagonal=True)


def round_ticks(highest: float) -> tuple[float, list[float]]:
    """A round number from `highest` on, and about five round steps from 0 to it.

    >>> round_ticks(0.99), round_ticks(7)
    ((1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (8.0, [0.0, 2.0, 4.0, 6.0, 8.0]))
    """
    highest = highest if highest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= highest / 5 * 0.999)
    count = math.ceil(highest / step - 1e-9)
    return float(f"{count * step:.10g}"), [float(f"{number * step:.10g}") for number in range(count + 1)]


def _draw(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    size: tuple[int, int],
    ticks_across: Mapping[float, str],
    ticks_up: Mapping[float, str],
    across: str,
    up: str = "",
    diagonal: bool = False,
) -> np.ndarray:
    """Curves whose points, like the ticks, are given in shares of the axes."""
    right, lower = size[0] - _RIGHT, size[1] - _LOWER
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=22)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (right - _LEFT) * x, lower - (lower - _UPPER) * y

    for share, label in ticks_up.items():
        draw.line((*place(0, share), *place(1, share)), fill=GRID)
        draw.text((_LEFT - 12, place(0, share)[1]), label, fill=INK, font=font, anchor="rm")
    for share, label in ticks_across.items():
        draw.text((place(share, 0)[0], lower + 12), label, fill=INK, font=font, anchor="ma")
    if diagonal:
        draw.line((*place(0, 0), *place(1, 1)), fill=INK)
    draw.text(((_LEFT + right) / 2, size[1] - 32), across, fill=INK, font=font, anchor="ma")
    draw.text((_LEFT, 12), up, fill=INK, font=font)
    start = float(_LEFT)
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        places = [place(x, y) for x, y in points]
        draw.line(places, fill=colour, width=4, joint="curve")
        for x, y in places:
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
        draw.text((start, 40 if up else 22), name, fill=colour, font=font)
        start += draw.textlength(name, font=font) + 40
    return np.asarray(picture)
