"""Curves as a picture, drawn by Pillow, so that no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID = (20, 23, 26), (215, 218, 222), (58, 64, 71)
COLOURS = ((124, 196, 232), (240, 178, 102), (150, 214, 150), (222, 142, 190))


def draw_curves(
    curves: Mapping[str, Sequence[float]], *, across: str, width: int = 1200, height: int = 640
) -> np.ndarray:
    """Curves over 1, 2, 3, ..., from 0 to their common maximum.

    Args:
        curves: by name, each at least two values, none negative.
        across: label of the horizontal axis.

    Returns:
        (height, width, 3) uint8.

    >>> draw_curves({"sqrt(eta)": [0.1, 0.5, 0.99]}, across="step t").shape
    (640, 1200, 3)
    """
    longest = max(len(values) for values in curves.values())
    top = max(max(values) for values in curves.values()) or 1.0
    left, right, upper, lower = 90, width - 40, 70, height - 80
    picture = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=22)
    for part in range(5):
        y = lower - (lower - upper) * part / 4
        draw.line((left, y, right, y), fill=GRID)
        draw.text((left - 12, y), f"{top * part / 4:.2f}", fill=INK, font=font, anchor="rm")
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
