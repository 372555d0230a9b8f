"""How strong the predicted detail is, on photographs at native size and enlarged.

    python benchmarks/slope.py FOLDER ... [--checkpoint x4] [--mode faithful]

Slope of the true detail (reference less bicubic) on the predicted one (result less bicubic), by least squares through
0: 1 for a posterior mean, below 1 where the predicted detail is too strong. Protocol: photographs at even places of the
folder's list, enlarged by Lanczos, 8 bit; the centre of 512 pixels; `bicubic-pillow` x4; field of view, RGB, seed 0.
"8 bit": result and bicubic are rounded. Every number is the mean over the crops.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retinashift.data.photographs import find_photographs
from retinashift.evaluation.similarity import psnr_rgb, radial_power, sharpness
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint
from retinashift.models.codec import upsample_bicubic

SIDE = 512
FACTORS = (1.0, 1.5, 2.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="x4", help="folder or bundled name; default x4")
    parser.add_argument("--mode", choices=["faithful", "realistic"], default="faithful")
    parser.add_argument("--count", type=int, default=12, help="photographs of a folder; default 12")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = open_checkpoint(options.checkpoint)
    print("| set | enlarged | slope | slope, 8 bit | PSNR | bicubic | sharpness |\n|---|---|---|---|---|---|---|")
    for folder in options.folders:
        refs = find_photographs(folder)
        chosen = [refs[place] for place in np.linspace(0, len(refs) - 1, options.count).astype(int)]
        for factor in FACTORS:
            found = [measure(pipeline, centre(ref.read(), factor), options.mode) for ref in chosen]
            slope, rounded, psnr, bicubic, sharp = np.mean(found, 0)
            print(
                f"| {folder.name}, {len(found)} | {factor:g} | {slope:.2f} | {rounded:.2f} | {psnr:.2f} | "
                f"{bicubic:.2f} | {sharp:.2f} |",
                flush=True,
            )


def centre(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The middle of an enlarged photograph, (SIDE, SIDE, 3) uint8."""
    height, width = (round(side * factor) for side in pixels.shape[:2])
    enlarged = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return enlarged[top : top + SIDE, left : left + SIDE]


def measure(pipeline: ResShiftPipeline, hr: np.ndarray, mode: str) -> tuple[float, float, float, float, float]:
    """Slope of unrounded and of rounded results, PSNR of result and bicubic in dB, sharpness."""
    field, lr = field_of_view(hr), bicubic_pillow(hr, 4)
    result = pipeline(lr, mode=mode, generator=torch.Generator().manual_seed(0), output_type="pt").images[
        0
    ]  # (3, H, W)
    smooth = upsample_bicubic(torch.tensor(lr).permute(2, 0, 1)[None] / 255, 4, pipeline.config.upsampling)[0]
    sr, bicubic = (picture.float().permute(1, 2, 0).numpy() * 255 for picture in (result, smooth))
    rounded = [np.rint(picture.clip(0, 255)) for picture in (sr, bicubic)]
    bytes_ = [picture.astype(np.uint8) for picture in rounded]
    return (
        slope(hr, sr, bicubic, field),
        slope(hr, *rounded, field),
        psnr_rgb(bytes_[0], hr, field),
        psnr_rgb(bytes_[1], hr, field),
        sharpness(radial_power(bytes_[0], field), radial_power(hr, field), 4),
    )


def slope(hr: np.ndarray, sr: np.ndarray, bicubic: np.ndarray, field: np.ndarray) -> float:
    """Of the true detail on the predicted one; pictures in levels of 255."""
    true, predicted = (hr - bicubic)[field].ravel(), (sr - bicubic)[field].ravel()
    return float((true * predicted).sum() / (predicted**2).sum())


if __name__ == "__main__":
    main()
