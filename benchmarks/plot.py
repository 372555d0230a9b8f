"""The plot of the README: quality against CPU seconds, from the JSON reports of `retinashift evaluate`.

    retinashift evaluate PHOTOGRAPHS --mode faithful --mode realistic --metrics lesions \\
        --against SPAN=results/span --json scores.json
    python benchmarks/plot.py scores.json --score red_dots_seen --seconds SPAN=0.5 -o docs/images/quality_time.png

Results that were read from a folder have no seconds in a report: give them with --seconds, as benchmarks/rivals.py
prints them. Bars are the 95 % bootstrap intervals of the report. The axis of seconds is logarithmic.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, FINER = 860, 520, 2
"""Pixels of the plot, which is drawn `FINER` times as large and reduced."""
LEFT, RIGHT, TOP, BOTTOM = 92, 24, 62, 74
INK, GREY, GRID, OURS, OTHERS = "#1c2430", "#556070", "#e3e7ec", "#c2410c", "#3b4754"
SCORES = {
    "red_dots_seen": "small red dots still seen, share",
    "red_dots_ratio": "contrast of small red dots, over the photograph's",
    "psnr_rgb_fov": "PSNR in the field of view, dB",
    "vessel_dice": "vessels found, Dice with the photograph's",
    "vessel_thin": "thin vessels found, share",
}
LEFT_OUT = ("nearest",)


@dataclass(frozen=True)
class Point:
    """A method: CPU seconds a photograph, and the mean of a score with its interval."""

    name: str
    seconds: float
    mean: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, help="JSON of retinashift evaluate, of the same photographs")
    parser.add_argument("--score", choices=SCORES, default="red_dots_seen")
    parser.add_argument("--seconds", action="append", default=[], help="NAME=CPU seconds a photograph; may be repeated")
    parser.add_argument("--title", default="", help="above the plot; default: the number of photographs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="PNG")
    options = parser.parse_args()
    try:
        seconds = {name: float(value) for name, _, value in (text.partition("=") for text in options.seconds)}
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in options.reports]
        points = read_points(reports, options.score, seconds)
        photographs = reports[0]["protocol"]["photographs"]
        title = options.title or f"{photographs} photographs, x{reports[0]['protocol']['scale']}, one CPU thread"
        draw(points, SCORES[options.score], title).save(options.out)
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"Error: {error}")
    for point in points:
        print(f"{point.name:32} {point.seconds:8.3f} s {point.mean:8.4f} ({point.low:.4f} to {point.high:.4f})")


def read_points(reports: list[dict], score: str, seconds: dict[str, float]) -> list[Point]:
    """One point a method, the first report that has it counting. ValueError for reports of other photographs."""
    points: dict[str, Point] = {}
    images = [{row["image"] for row in report["rows"]} for report in reports]
    if any(other != images[0] for other in images):
        raise ValueError("the reports score different photographs; evaluate all methods on the same ones")
    for report in reports:
        for name, scores in report["intervals"].items():
            took = seconds.get(name, report["means"][name].get("cpu_seconds"))
            if name not in points and name not in LEFT_OUT and score in scores and took:
                points[name] = Point(name, took, *scores[score])
    if not points:
        raise ValueError(f"no method has both {score} and CPU seconds; evaluate that metric, or give --seconds")
    return list(points.values())


def draw(points: list[Point], heading: str, title: str) -> Image.Image:
    """The plot, ours in colour."""
    canvas = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), "white")
    pen = ImageDraw.Draw(canvas)
    font, small = (ImageFont.load_default(size=size * FINER) for size in (15, 13))
    decades = [math.floor(math.log10(min(p.seconds for p in points))), math.log10(max(p.seconds for p in points))]
    decades[1] = max(decades[0] + 1, math.ceil(decades[1] * 2) / 2)
    low, high = min(p.low for p in points), max(p.high for p in points)
    air = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    low, high = low - air, high + air

    def place(seconds: float, value: float) -> tuple[float, float]:
        across = (math.log10(seconds) - decades[0]) / (decades[1] - decades[0])
        x = LEFT + across * (WIDTH - LEFT - RIGHT)
        return x * FINER, (HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)) * FINER

    for power in range(int(decades[0]), math.floor(decades[1]) + 1):
        x, bottom = place(10.0**power, low)
        pen.line([(x, TOP * FINER), (x, bottom)], GRID, FINER)
        pen.text((x, bottom + 8 * FINER), f"{10.0**power:g}", GREY, small, "ma")
    for tick in ticks(low, high):
        x, y = place(10.0 ** decades[0], tick)
        pen.line([(x, y), ((WIDTH - RIGHT) * FINER, y)], GRID, FINER)
        pen.text((x - 8 * FINER, y), f"{tick:g}", GREY, small, "rm")
    pen.text((LEFT * FINER, 14 * FINER), heading, INK, font)
    pen.text((LEFT * FINER, 36 * FINER), title, GREY, small)
    pen.text(((LEFT + WIDTH - RIGHT) / 2 * FINER, (HEIGHT - 30) * FINER), "CPU seconds a photograph", INK, font, "ma")
    taken = []
    for point in points:  # what no name may cover
        x, top = place(point.seconds, point.high)
        taken.append((x - 8 * FINER, top, x + 8 * FINER, place(point.seconds, point.low)[1]))
    for point, bar in zip(points, list(taken), strict=True):
        own = point.name.startswith("retinashift")
        colour, reach = (OURS, 7) if own else (OTHERS, 5)
        x, y = place(point.seconds, point.mean)
        pen.line([(x, bar[1]), (x, bar[3])], colour, 2 * FINER)
        pen.ellipse([x - reach * FINER, y - reach * FINER, x + reach * FINER, y + reach * FINER], colour)
        gap, written = 12 * FINER, font if own else small
        beside = (
            ((x + gap, y), "lm"),
            ((x - gap, y), "rm"),
            ((x, bar[1] - gap / 2), "md"),
            ((x, bar[3] + gap / 2), "ma"),
        )
        boxes = [pen.textbbox(at, point.name, written, anchor) for at, anchor in beside]
        free = [inside(box, canvas.size) and not any(overlap(box, other) for other in taken) for box in boxes]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        pen.text(beside[chosen][0], point.name, colour, written, beside[chosen][1])
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def inside(box: tuple[float, ...], size: tuple[int, int]) -> bool:
    return box[0] >= 0 and box[1] >= TOP * FINER and box[2] <= size[0] and box[3] <= size[1] - BOTTOM * FINER


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    return [float(f"{i * step:.10g}") for i in np.arange(math.ceil(low / step), math.floor(high / step) + 1)]


if __name__ == "__main__":
    main()
