"""The demo: reduce a public-domain retina, upscale it again, and show it beside bicubic and the original.

Photograph: M. Haggstroem, "Medical gallery of Mikael Haggstroem 2014", CC0, as shipped with scikit-image.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

from retinashift.evaluation.similarity import consistency, psnr_rgb, ssim_y
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.figures.comparison import busiest, changed, side_by_side
from retinashift.imaging.files import ImageError, write_image
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline

HR_SIDE = 704
"""Pixels a side. At its own 1,411 pixels the photograph is oversampled, and every method looks perfect."""
SIDE, ZOOM = 320, 4
"""Of a square of the figure, in pixels, and how much its detail is enlarged."""
FILES = ("lr.png", "bicubic.png", "sr.png", "hr.png", "figure.png")


@dataclass(frozen=True)
class DemoReport:
    """`rows` of a table, heading first; `note` on sizes and time; path of the figure."""

    rows: list[list[str]]
    note: str
    figure: Path


def run_demo(pipeline: ResShiftPipeline, out: Path, *, steps: int | None, seed: int, overwrite: bool) -> DemoReport:
    """Write lr.png, bicubic.png, sr.png, hr.png and figure.png into `out`.

    Raises:
        ImageError: one of them exists and `overwrite` is false; nothing is written then.
    """
    existing = [name for name in FILES if (out / name).exists()]
    if existing and not overwrite:
        raise ImageError(
            f"{out / existing[0]} exists already; give --overwrite to replace it, or another folder with -o"
        )
    scale = pipeline.config.scale
    whole = Image.fromarray(skimage.data.retina()).resize((HR_SIDE, HR_SIDE), Image.Resampling.LANCZOS)
    hr = crop_to_multiple(np.asarray(whole), scale)
    lr = bicubic_pillow(hr, scale)
    started = time.perf_counter()
    sr = pipeline(lr, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed)).images[0]
    seconds = time.perf_counter() - started
    pictures = {"nearest": enlarge(lr, scale, "nearest"), "bicubic": enlarge(lr, scale, "bicubic"), "RetinaShift": sr}
    out.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("lr", lr), ("bicubic", pictures["bicubic"]), ("sr", sr), ("hr", hr)):
        write_image(out / f"{name}.png", pixels, overwrite=True)
    eye = field_of_view(hr)
    rows = [["method", "PSNR dB", "SSIM", "consistency dB"]]
    captions = {}
    for name, pixels in pictures.items():
        psnr = psnr_rgb(pixels, hr, eye)
        rows.append([name, f"{psnr:.2f}", f"{ssim_y(pixels, hr, eye):.4f}", f"{consistency(pixels, lr, scale):.1f}"])
        captions[name] = f"{name}\n{psnr:.2f} dB"
    note = (
        f"{lr.shape[1]}x{lr.shape[0]} to {sr.shape[1]}x{sr.shape[0]} in {seconds:.1f} s. "
        "PSNR in RGB and SSIM on luma, both in the field of view; "
        "consistency is the PSNR of the result, reduced again, against the input."
    )
    captions["nearest"] = f"input\n{lr.shape[1]}x{lr.shape[0]}"
    shown = {captions[name]: pixels for name, pixels in (pictures | {"nearest": lr}).items()}
    shown[f"original\n{hr.shape[1]}x{hr.shape[0]}"] = hr
    detail = busiest(changed(sr, pictures["bicubic"], scale), SIDE // ZOOM, scale)
    place = "Framed, and enlarged below: where the result differs most from bicubic."
    drawn = "" if steps is None else f" {steps} steps, seed {seed}."
    figure = side_by_side(shown, detail, SIDE, note=f"{place} PSNR in RGB, field of view.{drawn}")
    write_image(out / "figure.png", figure, overwrite=True)
    return DemoReport(rows, note, out / "figure.png")
