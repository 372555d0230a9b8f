"""Consistency and CPU seconds of every result, on folders of photographs.

Protocol: bicubic-pillow x4 of each photograph, the mode that is named, seed 0, one thread. With --native the
photographs themselves are upscaled. The first photograph of all is upscaled once before.

    python benchmarks/photographs.py FOLDER ... [--native] [--mode realistic] [--limit N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple
from retinashift.imaging.files import find_images, read_image
from retinashift.inference.pipeline import ResShiftPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--native", action="store_true", help="upscale the photographs instead of their reductions")
    parser.add_argument("--mode", choices=["faithful", "realistic"], default="faithful")
    parser.add_argument("--limit", type=int, default=1000, help="photographs of a folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe, warm = ResShiftPipeline.from_shipped(), False
    scale = pipe.config.scale
    for folder in options.folders:
        paths = [path for path, relative in find_images([folder]) if len(relative.parts) == 1][: options.limit]
        consistency, seconds = [], 0.0
        for path in paths:
            photograph = crop_to_multiple(read_image(path).pixels, scale)
            lr = photograph if options.native else bicubic_pillow(photograph, scale)
            if not warm:
                pipe(lr, mode=options.mode)
                warm = True
            started = time.process_time()
            consistency += pipe(lr, mode=options.mode).consistency
            seconds += time.process_time() - started
        print(
            f"{folder}, {'native' if options.native else 'reduced'}, {options.mode}: {len(paths)} photographs, "
            f"consistency at least {np.min(consistency):.2f} dB (median {np.median(consistency):.2f}), "
            f"{seconds:.2f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
