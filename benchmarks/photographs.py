"""Whether every result gives its input back: consistency, equal values, the self-check, on folders of photographs.

Protocol: bicubic-pillow x4 of each photograph, the mode that is named, seed 0, one thread, in float32 unless another
precision is named. With --native the photographs themselves are upscaled. Each result, 8 bit, is reduced by Pillow,
which rounds it, and compared with its input. With --without-check each is made a second time without the self-check.

    python benchmarks/photographs.py FOLDER ... [--native] [--mode realistic] [--limit N] [--without-check]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from retinashift.data.photographs import find_photographs
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple
from retinashift.inference.pipeline import open_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="x4")
    parser.add_argument("--native", action="store_true", help="upscale the photographs instead of their reductions")
    parser.add_argument("--mode", choices=["faithful", "realistic"], default="faithful")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--limit", type=int, default=1000, help="photographs of a folder")
    parser.add_argument("--without-check", action="store_true", help="compare with results without the self-check")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = open_checkpoint(options.checkpoint)
    unchecked = open_checkpoint(options.checkpoint) if options.without_check else None
    if unchecked is not None:
        unchecked.register_to_config(check_measure="off")
    scale = pipe.config.scale
    settings = {"mode": options.mode, "precision": options.precision, "output_type": "np"}
    for folder in options.folders:
        consistency, equal, most, returned, seconds, same = [], [], 0, [], 0.0, 0
        for ref in find_photographs(folder)[: options.limit]:
            photograph = crop_to_multiple(ref.read(), scale)
            lr = photograph if options.native else bicubic_pillow(photograph, scale)
            started = time.process_time()
            result = pipe(lr, **settings)
            seconds += time.process_time() - started
            off = np.abs(bicubic_pillow(result.images[0], scale).astype(int) - lr)
            consistency, returned = consistency + result.consistency, returned + result.bicubic_share
            equal, most = [*equal, float((off == 0).mean())], max(most, int(off.max()))
            if unchecked is not None:
                other = unchecked(lr, **settings).images[0]
                same += bool(np.array_equal(result.images[0], other))
        print(
            f"{folder}, {'native' if options.native else 'reduced'}, {options.mode}: {len(equal)} photographs, "
            f"consistency at least {np.min(consistency):.2f} dB (median {np.median(consistency):.2f}), "
            f"equal {np.mean(equal):.3%} (lowest {np.min(equal):.3%}), largest difference {most}, "
            f"returned to bicubic at most {np.max(returned):.4%}, {seconds:.2f} CPU s"
            + (f", {same} equal without the self-check" if options.without_check else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
