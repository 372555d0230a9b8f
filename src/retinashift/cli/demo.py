"""The demo: a public-domain retina is reduced, enlarged again, and shown beside bicubic and the original.

Photograph: M. Haggstroem, "Medical gallery of Mikael Haggstroem 2014", CC0, as shipped with scikit-image.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont

from retinashift.evaluation.similarity import consistency, psnr_rgb, ssim_y
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.files import ImageError, write_image
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline

HR_SIDE = 704
"""The photograph is reduced to half first: at its own 1411 pixels it is oversampled, and any method looks perfect."""
DETAIL = (slice(300, 380), slice(100, 180))
"""Rows and columns of the detail: fine vessels and pigment at the edge of the optic disc."""
FILES = ("lr.png", "bicubic.png", "sr.png", "hr.png", "figure.png")
BAR, GAP, INK, PAPER = 30, 8, (230, 230, 230), (17, 17, 17)


@dataclass(frozen=True)
class DemoReport:
    """`rows` of a table, heading first; `note` on sizes and time; the figure's path."""

    rows: list[list[str]]
    note: str
    figure: Path


def run_demo(pipeline: ResShiftPipeline, out: Path, *, steps: int | None, seed: int, overwrite: bool) -> DemoReport:
    """Write lr.png, bicubic.png, sr.png, hr.png and figure.png into `out`.

    Raises:
        ImageError: one of them exists and `overwrite` is false; then none is written.
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
        captions[name] = f"{name}  {psnr:.2f} dB"
    note = (
        f"{lr.shape[1]}x{lr.shape[0]} to {sr.shape[1]}x{sr.shape[0]} in {seconds:.1f} s. "
        "PSNR in RGB and SSIM on luma, both in the field of view; "
        "consistency is the PSNR of the result, reduced again, against the input."
    )
    captions["nearest"] = f"input {lr.shape[1]}x{lr.shape[0]}, pixels repeated"
    figure = draw_figure({captions[name]: pixels for name, pixels in pictures.items()} | {"original": hr})
    write_image(out / "figure.png", figure, overwrite=True)
    return DemoReport(rows, note, out / "figure.png")


def draw_figure(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Labelled side by side: whole pictures above, the same detail enlarged fourfold below. (H, W, 3) uint8."""
    side = 4 * (DETAIL[0].stop - DETAIL[0].start)
    height = BAR + side + GAP + side + GAP
    canvas = Image.new("RGB", (GAP + len(pictures) * (side + GAP), height), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    for column, (caption, pixels) in enumerate(pictures.items()):
        left = GAP + column * (side + GAP)
        draw.text((left, 7), caption, fill=INK, font=font)
        whole = Image.fromarray(pixels)
        shrink = side / pixels.shape[0]
        canvas.paste(whole.resize((round(pixels.shape[1] * shrink), side), Image.Resampling.LANCZOS), (left, BAR))
        corners = [round(DETAIL[1].start * shrink) + left, round(DETAIL[0].start * shrink) + BAR]
        corners += [round(DETAIL[1].stop * shrink) + left, round(DETAIL[0].stop * shrink) + BAR]
        draw.rectangle(corners, outline=INK)
        detail = Image.fromarray(np.ascontiguousarray(pixels[DETAIL]))
        canvas.paste(detail.resize((side, side), Image.Resampling.NEAREST), (left, BAR + side + GAP))
    return np.asarray(canvas)
