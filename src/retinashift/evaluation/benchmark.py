"""The benchmark: photographs are reduced, enlarged by each method, and scored; one report with its protocol."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from retinashift import __version__
from retinashift.evaluation.metrics import SSIM_WINDOW, consistency, psnr_rgb, psnr_y, ssim_y
from retinashift.imaging.degradation import DEGRADATION, Enlargement, bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.files import replace_file
from retinashift.imaging.fundus import DARKEST_FIELD, SURROUND_FACTOR, field_of_view


@dataclass(frozen=True)
class Method:
    """Something that enlarges: `run(lr, seed)` takes and returns uint8, (H, W, 3) or (H, W) -> scale times that."""

    name: str
    run: Callable[[np.ndarray, int], np.ndarray]
    stochastic: bool = False
    """Run once for every seed, and scored by the mean."""


@dataclass(frozen=True)
class Scores:
    """dB, SSIM, and seconds of a method's `run`. inf where pictures are equal."""

    psnr_rgb: float
    psnr_rgb_fov: float
    psnr_y: float
    psnr_y_fov: float
    ssim_y: float
    ssim_y_fov: float
    consistency: float
    cpu_seconds: float
    """Of this process, all its threads."""
    wall_seconds: float


@dataclass(frozen=True)
class Row:
    """One photograph and method; the mean over `seeds`."""

    image: str
    method: str
    seeds: tuple[int, ...]
    """Empty for a method that is not stochastic."""
    scores: Scores


@dataclass(frozen=True)
class Report:
    """Rows in the order of photographs, then methods."""

    scale: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]

    def means(self) -> dict[str, Scores]:
        """Mean over photographs by method, in the order of methods; one infinite score makes it infinite."""
        names = dict.fromkeys(row.method for row in self.rows)
        return {name: _mean([row.scores for row in self.rows if row.method == name]) for name in names}

    def protocol(self) -> dict[str, Any]:
        """What the figures depend on, in words and versions."""
        return {
            "scale": self.scale,
            "degradation": DEGRADATION,
            "photographs": len(dict.fromkeys(row.image for row in self.rows)),
            "crop": f"right and bottom, to a multiple of {self.scale}",
            "pixels": "8 bit, as the methods return them; whole size, no border left out",
            "seeds": list(self.seeds),
            "psnr_rgb": "over all channels",
            "psnr_y": "BT.601 luma, 16 to 235, not rounded; peak 255",
            "ssim_y": f"{SSIM_WINDOW}x{SSIM_WINDOW} Gaussian, sigma 1.5, K1 0.01, K2 0.03, range 255, on the same luma",
            "field_of_view": f"full-range BT.601 luma above {SURROUND_FACTOR} x the 99th percentile of the corners, at "
            f"least {DARKEST_FIELD:g}; largest component, holes filled, eroded by 4 pixels",
            "consistency": f"PSNR between the input and the result reduced by {DEGRADATION}",
            "seconds": "cpu_seconds of the process, wall_seconds by the clock; a photograph each",
            "means": 'over seeds, then over photographs; "inf" where pictures are equal',
            "versions": {"retinashift": __version__}
            | {name: version(name) for name in ("torch", "numpy", "pillow", "scipy", "scikit-image")},
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data: `protocol`, `means` by method, `rows`. Infinite numbers are the string "inf": JSON has none."""
        return {
            "protocol": self.protocol(),
            "means": {name: _finite(scores) for name, scores in self.means().items()},
            "rows": [
                {"image": row.image, "method": row.method, "seeds": list(row.seeds)} | _finite(row.scores)
                for row in self.rows
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write `to_json` as a file, whole or not at all; one that exists is replaced."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        replace_file(Path(path), (text + "\n").encode())

    def table(self) -> list[list[str]]:
        """The means as text, heading first. "fov" is the field of view."""
        heading = ["method", "PSNR dB", "PSNR fov", "PSNR-Y fov", "SSIM-Y fov", "consistency dB", "seconds", "CPU s"]
        return [
            heading,
            *(
                [name]
                + [f"{value:.2f}" for value in (mean.psnr_rgb, mean.psnr_rgb_fov, mean.psnr_y_fov)]
                + [f"{mean.ssim_y_fov:.4f}", f"{mean.consistency:.2f}"]
                + [f"{mean.wall_seconds:.2f}", f"{mean.cpu_seconds:.2f}"]
                for name, mean in self.means().items()
            ),
        ]


def baseline(name: Enlargement, scale: int) -> Method:
    """Interpolation as a method: "nearest", "bicubic" or "lanczos"."""
    return Method(name, lambda lr, seed: enlarge(lr, scale, name))


def evaluate(
    photographs: Iterable[tuple[str, np.ndarray]],
    methods: Sequence[Method],
    *,
    scale: int,
    seeds: Sequence[int],
    on_progress: Callable[[int], object] | None = None,
) -> Report:
    """Score methods over photographs.

    Args:
        photographs: name and HR pixels, (H, W, 3) or (H, W) uint8, each side at least 11 pixels and the scale. They are
            taken one by one, so an iterator keeps one in memory.
        methods: with names of their own.
        scale: whole number, at least 1.
        seeds: for stochastic methods, at least one.
        on_progress: called after each photograph with the number done.

    Raises:
        ValueError: no photograph, method or seed; a name twice; or, named, a picture that cannot be scored.
    """
    names = [method.name for method in methods]
    if not names or not seeds:
        raise ValueError(f"{len(names)} methods and {len(seeds)} seeds were given; at least one of each is needed")
    for kind, values in (("method", names), ("seed", list(seeds))):
        if len(set(values)) < len(values):
            raise ValueError(f"a {kind} is given twice: {', '.join(map(str, values))}")
    rows: list[Row] = []
    done = 0
    for image, pixels in photographs:
        try:
            hr = crop_to_multiple(pixels, scale)
            lr = bicubic_pillow(hr, scale)
            field = field_of_view(hr)
        except ValueError as error:
            raise ValueError(f"{image}: {error}") from error
        for method in methods:
            used = tuple(seeds) if method.stochastic else ()
            try:
                scores = [_score(method, hr, lr, field, scale, seed) for seed in used or (seeds[0],)]
            except ValueError as error:
                raise ValueError(f"{image}, {method.name}: {error}") from error
            rows.append(Row(image, method.name, used, _mean(scores)))
        done += 1
        if on_progress is not None:
            on_progress(done)
    if not rows:
        raise ValueError("no photograph was given; at least one is needed")
    return Report(scale, tuple(seeds), tuple(rows))


def _score(method: Method, hr: np.ndarray, lr: np.ndarray, field: np.ndarray, scale: int, seed: int) -> Scores:
    wall, cpu = time.perf_counter(), time.process_time()
    sr = method.run(lr, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Scores(
        psnr_rgb=psnr_rgb(sr, hr),
        psnr_rgb_fov=psnr_rgb(sr, hr, field),
        psnr_y=psnr_y(sr, hr),
        psnr_y_fov=psnr_y(sr, hr, field),
        ssim_y=ssim_y(sr, hr),
        ssim_y_fov=ssim_y(sr, hr, field),
        consistency=consistency(sr, lr, scale),
        cpu_seconds=cpu,
        wall_seconds=wall,
    )


def _mean(scores: Sequence[Scores]) -> Scores:
    return Scores(*(fmean(getattr(score, field.name) for score in scores) for field in fields(Scores)))


def _finite(scores: Scores) -> dict[str, float | str]:
    return {name: "inf" if math.isinf(value) else value for name, value in asdict(scores).items()}
