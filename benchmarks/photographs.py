"""Consistency of every result, and what working on the eye alone saves and changes, on folders of photographs.

Protocol: bicubic-pillow x4 of each photograph, the mode that is named, seed 0, one thread. With --native the
photographs themselves are enlarged. CPU seconds of the call, `--repeats` times in turn with and without the surround,
of which the median counts; the first photograph is worked on once before. The eye's share is that of the pixels that
are worth the work (`eye_columns`): more than the rest cannot be saved. Levels are of 255, compared inside the field of
view, which is `eye_columns` without margin; PSNR is between those pixels and the photograph, over R, G and B.

    python benchmarks/photographs.py FOLDER ... [--native] [--mode realistic] [--limit N] [--repeats N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple
from retinashift.imaging.files import find_images, read_image
from retinashift.imaging.fundus import eye_columns
from retinashift.inference.pipeline import ResShiftPipeline


def within(columns: np.ndarray, width: int, scale: int) -> np.ndarray:
    """(h, 2) columns of the input -> (h*scale, width*scale) bool."""
    start, end = (np.repeat(columns, scale, axis=0) * scale).T[..., None]  # (h*scale, 1) each
    place = np.arange(width * scale)
    return (place >= start) & (place < end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--native", action="store_true", help="enlarge the photographs instead of their reductions")
    parser.add_argument("--mode", choices=["faithful", "realistic"], default="faithful")
    parser.add_argument("--limit", type=int, default=1000, help="photographs of a folder")
    parser.add_argument("--repeats", type=int, default=1, help="calls of each kind on each photograph")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = ResShiftPipeline.from_shipped()
    scale, warm = pipe.config.scale, False
    for folder in options.folders:
        paths = [path for path, relative in find_images([folder]) if len(relative.parts) == 1][: options.limit]
        consistency, shares, worst, further, pixels, seconds = [], [], 0, 0, 0, {False: 0.0, True: 0.0}
        errors: dict[bool, list[float]] = {False: [], True: []}
        for path in paths:
            photograph = crop_to_multiple(read_image(path).pixels, scale)
            lr = photograph if options.native else bicubic_pillow(photograph, scale)
            if not warm:
                pipe(lr, mode=options.mode, whole_frame=True)
                warm = True
            times, images = {False: [], True: []}, {}
            for _ in range(options.repeats):
                for whole_frame in times:
                    started = time.process_time()
                    result = pipe(lr, mode=options.mode, whole_frame=whole_frame)
                    times[whole_frame].append(time.process_time() - started)
                    images[whole_frame] = result.images[0].astype(np.int32)
                    if not whole_frame:
                        consistency += result.consistency
            field = within(eye_columns(lr, margin=0), lr.shape[1], scale)
            difference = np.abs(images[False] - images[True])[field] * 255 // np.iinfo(lr.dtype).max
            worst, further = max(worst, int(difference.max())), further + int((difference > 0).sum())
            pixels += difference.size
            shares.append(np.mean(eye_columns(lr) @ [-1, 1]) / lr.shape[1])
            for whole_frame, image in images.items():
                seconds[whole_frame] += float(np.median(times[whole_frame]))
                if not options.native:
                    error = ((image - photograph.astype(np.int32))[field] / np.iinfo(lr.dtype).max) ** 2
                    errors[whole_frame].append(-10 * np.log10(error.mean()))
        print(
            f"{folder}, {'native' if options.native else 'reduced'}, {options.mode}: {len(paths)} photographs, "
            f"consistency at least {np.min(consistency):.2f} dB (median {np.median(consistency):.2f}); the eye fills "
            f"{100 * np.mean(shares):.1f} % of the frame; {seconds[False]:.2f} CPU s on the eye, {seconds[True]:.2f} "
            f"on the whole frame, {100 * (1 - seconds[False] / seconds[True]):.1f} % saved; inside the field values "
            f"differ by {worst} levels at most, {100 * further / pixels:.3f} % of them do",
            flush=True,
        )
        if not options.native:
            print(f"  PSNR {np.mean(errors[False]):.4f} dB on the eye, {np.mean(errors[True]):.4f} on the whole frame")


if __name__ == "__main__":
    main()
