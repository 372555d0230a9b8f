"""The uncertainty map on blurred inputs, beside the true error: the table "Blurred inputs" of the manual.

    python benchmarks/blur.py FOLDER [--checkpoint x4]

Centre crops of 512 pixels of every third photograph, blurred by a Gaussian, reduced by bicubic-pillow and enlarged by
the default mode. The error is measured against the sharp photograph: mean absolute difference of all colours, and mean
of the map, field of view, levels of 255.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from retinashift.data.photographs import find_photographs
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint

SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # pixels of the photograph
SIDE, EVERY = 512, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--checkpoint", default="x4", help="one that states its uncertainty")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = open_checkpoint(options.checkpoint)
    crops = [centre(ref.read()) for ref in find_photographs(options.photographs)[::EVERY]]
    for sigma in SIGMAS:
        found = np.mean([measure(pipe, hr, sigma) for hr in crops], axis=0)
        print(f"{options.checkpoint}, {len(crops)} crops, sigma {sigma:g}: error {found[0]:.2f}, map {found[1]:.2f}")


def centre(photograph: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (SIDE, SIDE, 3), or less where the photograph is smaller, sides multiples of 4."""
    height, width = (min(SIDE, side // 4 * 4) for side in photograph.shape[:2])
    top, left = (photograph.shape[0] - height) // 2, (photograph.shape[1] - width) // 2
    return photograph[top : top + height, left : left + width]


def measure(pipe: ResShiftPipeline, hr: np.ndarray, sigma: float) -> tuple[float, float]:
    """Mean error and mean map in levels of 255; `hr` is (H, W, 3) uint8, `sigma` in its pixels."""
    soft = np.rint(ndimage.gaussian_filter(hr.astype(np.float32), (sigma, sigma, 0))).astype(np.uint8)
    result = pipe(bicubic_pillow(soft, 4), output_uncertainty=True, output_type="np")
    field = field_of_view(hr)
    error = np.abs(result.images[0].astype(np.float32) - hr)[field].mean()
    return float(error), float(255 * result.sigma[0][field].mean())


if __name__ == "__main__":
    main()
