"""CPU seconds and peak memory of upscaling one photograph at one thread, beside Pillow's bicubic enlargement.

The picture has the size of a DRIVE photograph reduced by 4: 141x146, enlarged to 564x584. It is made from the public
domain retina of scikit-image. Loading the checkpoint is measured apart.

    python benchmarks/upscale.py [--steps N] [--runs N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image

from retinashift.inference.pipeline import ResShiftPipeline

WIDTH, HEIGHT, SCALE = 141, 146, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=None, help="network calls; default: the checkpoint's")
    parser.add_argument("--runs", type=int, default=5, help="timed runs, of which the median is reported")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lr = low_resolution_photograph()

    load_seconds, pipe = cpu_seconds(ResShiftPipeline.from_shipped)
    loaded = peak_mib()
    pipe.set_progress_bar_config(disable=True)

    def upscale() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return pipe(lr, num_inference_steps=options.steps, generator=generator).images[0]

    first_seconds, sr = cpu_seconds(upscale)
    assert sr.shape == (HEIGHT * SCALE, WIDTH * SCALE, 3)
    ours = statistics.median(cpu_seconds(upscale)[0] for _ in range(options.runs))
    bicubic = bicubic_seconds(lr)
    figures = {
        "input": f"{WIDTH}x{HEIGHT}",
        "output": f"{WIDTH * SCALE}x{HEIGHT * SCALE}",
        "steps": options.steps or pipe.config.default_steps,
        "threads": options.threads,
        "cpu_seconds": round(ours, 3),
        "cpu_seconds_first_call": round(first_seconds, 3),
        "cpu_seconds_load": round(load_seconds, 3),
        "bicubic_cpu_seconds": round(bicubic, 6),
        "ratio_to_bicubic": round(ours / bicubic),
        "peak_mib_after_load": round(loaded),
        "peak_mib": round(peak_mib()),
        "torch": torch.__version__,
    }
    print(json.dumps(figures, indent=2))


def low_resolution_photograph() -> np.ndarray:
    """(146, 141, 3) uint8: the photograph at 584x584, its middle 564 columns, reduced by 4 as the protocol says."""
    side = HEIGHT * SCALE
    whole = Image.fromarray(skimage.data.retina()).resize((side, side), Image.Resampling.LANCZOS)
    left = (side - WIDTH * SCALE) // 2
    hr = whole.crop((left, 0, left + WIDTH * SCALE, side))
    return np.asarray(hr.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def bicubic_seconds(lr: np.ndarray, repeats: int = 50) -> float:
    """CPU seconds of one bicubic enlargement; the mean of many, as one is close to the clock's grain."""
    picture = Image.fromarray(lr)
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    total, _ = cpu_seconds(lambda: [picture.resize(size, Image.Resampling.BICUBIC) for _ in range(repeats)])
    return total / repeats


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of this process, all threads together."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def peak_mib() -> float:
    """The most memory this process has held so far, imports included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on a Mac, KiB elsewhere


if __name__ == "__main__":
    main()
