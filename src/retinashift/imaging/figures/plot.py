"""Curves as a picture, drawn by Pillow, so that no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID = (255, 255, 255), (28, 36, 48), (222, 226, 231)
COLOURS = ((29, 78, 216), (194, 65, 12), (15, 118, 110), (109, 40, 217))


def draw_curves(
    curves: Mapping[str, Sequence[float]], *, across: str, width: int = 1200, height: int = 640
) -> np.ndarray:
    """Curves over 1, 2, 3, ..., from 0 to a round number that none exceeds.

    Args:
        curves: by name, each at least two values, none negative.
        across: label of the horizontal axis.

    Returns:
        (height, width, 3) uint8.

    >>> draw_curves({"sqrt(eta)": [0.1, 0.5, 0.99]}, across="step t").shape
    (640, 1200, 3)
    """
    longest = max(len(values) for values in curves.values())
    top, ticks = round_ticks(max(max(values) for values in curves.values()))
    left, right, upper, lower = 90, width - 40, 70, height - 80
    picture = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=22)
    for tick in ticks:
        y = lower - (lower - upper) * tick / top
        draw.line((left, y, right, y), fill=GRID)
        draw.text((left - 12, y), f"{tick:g}", fill=INK, font=font, anchor="rm")
    every = max(1, longest // 15)
    for t in range(0, longest, every):
        x = left + (right - left) * t / (longest - 1)
        draw.text((x, lower + 12), str(t + 1), fill=INK, font=font, anchor="ma")
    draw.text(((left + right) / 2, height - 32), across, fill=INK, font=font, anchor="ma")
    start = float(left)
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        points = [
            (left + (right - left) * t / (len(values) - 1), lower - (lower - upper) * v / top)
            for t, v in enumerate(values)
        ]
        draw.line(points, fill=colour, width=4, joint="curve")
        for x, y in points:
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
        draw.text((start, 22), name, fill=colour, font=font)
        start += draw.textlength(name, font=font) + 40
    return np.asarray(picture)


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


def draw_against(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], *, across: str, up: str, side: int = 720
) -> np.ndarray:
    """Curves over shares, both axes from 0 to 1, with the diagonal on which they are equal.

    Args:
        x: ascending, in [0, 1].
        curves: by name, each as long as x, in [0, 1].
        across, up: labels of the axes.

    Returns:
        (side, side, 3) uint8.
    """
    left, right, upper, lower = 90, side - 40, 70, side - 80
    picture = Image.new("RGB", (side, side), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=20)
    place = lambda a, b: (left + (right - left) * a, lower - (lower - upper) * b)  # noqa: E731
    for part in range(6):
        share = part / 5
        draw.line((*place(0, share), *place(1, share)), fill=GRID)
        draw.line((*place(share, 0), *place(share, 1)), fill=GRID)
        draw.text((left - 12, place(0, share)[1]), f"{share:.0%}", fill=INK, font=font, anchor="rm")
        draw.text((place(share, 0)[0], lower + 12), f"{share:.0%}", fill=INK, font=font, anchor="ma")
    draw.line((*place(0, 0), *place(1, 1)), fill=INK, width=1)
    draw.text(((left + right) / 2, side - 30), across, fill=INK, font=font, anchor="ma")
    draw.text((left, upper - 16), up, fill=INK, font=font, anchor="ls")
    for number, ((name, values), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        points = [place(a, b) for a, b in zip(x, values, strict=True)]
        draw.line(points, fill=colour, width=4, joint="curve")
        for a, b in points:
            draw.ellipse((a - 5, b - 5, a + 5, b + 5), fill=colour)
        draw.text((left + 16, upper + 14 + 26 * number), name, fill=colour, font=font)
    return np.asarray(picture)
