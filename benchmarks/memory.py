"""Large pictures within a memory budget: peak memory against budget and plan, seconds, seams, bands against none.

Each size goes from file to file in a process of its own, by the shipped checkpoint and one thread. The picture is the
public-domain retina of scikit-image, resized by Lanczos.

    python benchmarks/memory.py [--sizes 512 2000] [--memory 2G] [--steps 1] [--figure FILE.png]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import skimage.data
from PIL import Image

ALLOWED_MEMORY, ALLOWED_TIME, ALLOWED_SEAM, ALLOWED_PLAN = 1.10, 1.15, 0.02, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2000], help="sides of the square inputs")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="where to draw pieces of the largest result, borders marked")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.memory, options.steps, options.folder)))
        return
    from retinashift.inference.memory import parse_bytes

    budget, first = parse_bytes(options.memory), None
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            command = [sys.executable, __file__, "--one", str(size), "--memory", options.memory, "--folder", folder]
            done = subprocess.run(
                [*command, "--steps", str(options.steps)], check=True, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["seconds_a_megapixel"]
            print(
                f"{size}x{size} -> {4 * size}x{4 * size}, {options.steps} step(s), --memory {options.memory}: "
                f"network {found['network']:.1f} CPU s, with files {found['seconds']:.1f}; "
                f"{found['seconds_a_megapixel']:.3f} s a megapixel ({found['seconds_a_megapixel'] / first:.2f} of the "
                f"first, allowed {ALLOWED_TIME}); peak {found['peak'] / 2**30:.2f} GiB "
                f"({found['peak'] / budget:.2f} of the budget, allowed {ALLOWED_MEMORY}; the network's "
                f"{found['network_peak'] / found['plan']:.2f} of the plan, allowed 1 +- {ALLOWED_PLAN})"
            )
            print(
                f"  bands of {found['band']} input rows; gradient across their borders {found['seam']:.4f} of that "
                f"across the nearest rows of the same place in a pixel (allowed 1 +- {ALLOWED_SEAM}); the same halfway "
                f"between borders, where there are none: {found['control']:.4f}"
            )
        if options.figure:
            draw(Path(folder) / f"{options.sizes[-1]}.png", found["band"], options.figure)
    print(against_untiled())


def measure(size: int, memory: str, steps: int, folder: Path) -> dict[str, Any]:
    """One picture, from a PNG file to a PNG file, both in `folder`."""
    import torch

    from retinashift.batch.jobs import BatchOptions, Job
    from retinashift.batch.upscale import upscale_files
    from retinashift.imaging.files import read_image
    from retinashift.inference.memory import parse_bytes
    from retinashift.inference.pipeline import ResShiftPipeline
    from retinashift.inference.settings import Sampling

    torch.set_num_threads(1)
    source, target = folder / f"lr_{size}.png", folder / f"{size}.png"
    subprocess.run([sys.executable, "-c", PICTURE, str(size), str(source)], check=True)  # its memory is not ours
    pipeline = ResShiftPipeline.from_shipped()
    bands = [0]
    network = BandWatch(pipeline, bands)
    begun = time.process_time()
    sampling = Sampling(num_inference_steps=steps, memory=parse_bytes(memory))
    options = BatchOptions(sampling=sampling)
    (outcome,) = upscale_files(network, [Job(source, target)], options)
    seconds = time.process_time() - begun
    assert not outcome.error, outcome.error
    peak = peak_memory()
    sr = read_image(target, max_pixels=2**30).pixels
    return {
        "network": network.seconds,
        "seconds": seconds,
        "seconds_a_megapixel": network.seconds / (16 * size * size / 1e6),
        "peak": peak,
        "network_peak": network.peak,
        "plan": network.planned,
        "band": bands[0],
        "control": seam(sr, 4 * first_border(pipeline, bands[0]) + 2 * bands[0], 4 * bands[0]),
        "seam": seam(sr, 4 * first_border(pipeline, bands[0]), 4 * bands[0]),
    }


PICTURE = """
import sys, skimage.data
from PIL import Image
side = int(sys.argv[1])
Image.fromarray(skimage.data.retina()).resize((side, side), Image.Resampling.LANCZOS).save(sys.argv[2])
"""


class BandWatch:
    """The pipeline, timed, telling how many rows at a time it took, what it planned to hold and what it held."""

    def __init__(self, pipeline: Any, bands: list[int]):
        self.pipeline, self.bands, self.seconds, self.planned, self.peak = pipeline, bands, 0.0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipeline, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from retinashift.inference import chain as module

        plan = module.plan_bands

        def watched(*given: Any) -> tuple[int, int]:
            self.bands[0], needed = plan(*given)
            self.planned = psutil.Process().memory_info().rss + 16 * args[0].size + needed
            return self.bands[0], needed

        module.plan_bands = watched
        begun = time.process_time()
        try:
            return self.pipeline(*args, **kwargs)
        finally:
            self.seconds, self.peak = time.process_time() - begun, peak_memory()
            module.plan_bands = plan


def peak_memory() -> int:
    """The most resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def seam(sr: np.ndarray, first: int, every: int, neighbours: int = 8) -> float:
    """Mean absolute step across borders, over that at rows 4, 8, ... away, which lie alike within an input pixel.

    Args:
        sr: (H, W, 3) uint8.
        first, every: rows of the borders.
    """
    height = len(sr)
    borders = range(first, height, every)

    def step(row: int) -> float:
        return float(np.abs(sr[row].astype(int) - sr[row - 1].astype(int)).mean())

    here = [step(row) for row in borders]
    near = [
        step(row + 4 * k)
        for row in borders
        for k in (*range(-neighbours, 0), *range(1, neighbours + 1))
        if 0 < row + 4 * k < height and (row + 4 * k - first) % every
    ]
    return float(np.mean(here) / np.mean(near)) if here else float("nan")


def first_border(pipeline: Any, band: int) -> int:
    """Input row at which the first band of the network's last layer ends: it waits for rows that it looks at."""
    return (band - 2 * pipeline.denoiser.config.depth - 2) % band


def against_untiled() -> str:
    """128x128 -> 512x512 in bands of any height against one band that holds the picture."""
    import torch

    from retinashift.inference import chain as module
    from retinashift.inference.pipeline import ResShiftPipeline

    torch.set_num_threads(1)
    pipeline = ResShiftPipeline.from_shipped()
    lr = np.asarray(Image.fromarray(skimage.data.retina()).resize((128, 128), Image.Resampling.LANCZOS))
    plan, results = module.plan_bands, {}
    try:
        for rows in (128, 64, 31, 8, 1):
            module.plan_bands = lambda *_, rows=rows: (rows, 0)
            results[rows] = pipeline(lr, num_inference_steps=4).images[0].astype(int)
    finally:
        module.plan_bands = plan
    worst = [f"{r} rows: {np.abs(sr - results[128]).max()}" for r, sr in results.items() if r != 128]
    return f"512x512 result, 4 steps, against one band, in bands of {', '.join(worst)} levels at most"


def draw(path: Path, band: int, out: Path, side: int = 480) -> None:
    """Three pieces of a result, twice: as they are, and with the borders of bands marked."""
    from retinashift.imaging.files import read_image
    from retinashift.inference.pipeline import ResShiftPipeline

    sr = read_image(path, max_pixels=2**30).pixels
    every, middle = band * 4, sr.shape[1] // 2
    tops = [int(len(sr) * share) - side // 2 for share in (0.3, 0.5, 0.7)]
    canvas = Image.new("RGB", (3 * (side + 8), 2 * (side + 8)), (17, 17, 17))
    for column, top in enumerate(tops):
        piece = sr[top : top + side, middle - side // 2 : middle + side // 2].copy()
        canvas.paste(Image.fromarray(piece), (column * (side + 8), 0))
        for row in range((4 * first_border(ResShiftPipeline.from_shipped(), band) - top) % every, side, every):
            piece[row, ::8] = (0, 255, 255)
        canvas.paste(Image.fromarray(piece), (column * (side + 8), side + 8))
    canvas.save(out)


if __name__ == "__main__":
    main()
