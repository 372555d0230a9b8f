"""Consistency of every result and time saved by working on the eye alone, on folders of photographs, at one thread.

Protocol: bicubic-pillow x4 of each photograph, one step by default, seed 0; CPU seconds of the call. With --native the
photographs themselves are enlarged.

    python benchmarks/photographs.py FOLDER ... [--native] [--limit N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from retinashift.imaging.degradation import bicubic_pillow, crop_to_multiple
from retinashift.imaging.files import find_images, read_image
from retinashift.inference.pipeline import ResShiftPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--native", action="store_true", help="enlarge the photographs instead of their reductions")
    parser.add_argument("--limit", type=int, default=1000, help="photographs of a folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = ResShiftPipeline.from_shipped()
    for folder in options.folders:
        paths = [path for path, relative in find_images([folder]) if len(relative.parts) == 1][: options.limit]
        consistency, seconds = [], {False: 0.0, True: 0.0}
        for path in paths:
            photograph = read_image(path).pixels
            lr = photograph if options.native else bicubic_pillow(crop_to_multiple(photograph, 4), 4)
            for whole_frame in seconds:
                started = time.process_time()
                result = pipe(lr, whole_frame=whole_frame)
                seconds[whole_frame] += time.process_time() - started
                if not whole_frame:
                    consistency += result.consistency
        print(
            f"{folder}: {len(paths)} photographs, consistency at least {np.min(consistency):.2f} dB "
            f"(median {np.median(consistency):.2f}); {seconds[False]:.2f} CPU s on the eye, {seconds[True]:.2f} on the "
            f"whole frame, {100 * (1 - seconds[False] / seconds[True]):.1f} % saved",
            flush=True,
        )


if __name__ == "__main__":
    main()
