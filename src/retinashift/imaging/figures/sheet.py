"""The contact sheet of a degradation: every step at its least, middle and greatest strength, and the whole chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.degradation.pipeline import OPTICS, STEPS, Camera, Step, apply_step
from retinashift.imaging.figures.comparison import INK, PAPER

SIDE = 200
"""Pixels of a picture on the sheet."""
ROWS = {
    "light": ("uneven light", "light", " %", 100), "haze": ("haze", "scattered", " %", 100),
    "spots": ("spots", "brightness", " %", 100), "isotropic": ("Gaussian blur", "sigma", " px", 1),
    "anisotropic": ("anisotropic blur", "sigma", " px", 1), "defocus": ("defocus", "radius", " px", 1),
    "motion": ("motion", "length", " px", 1), "noise": ("sensor noise", "deviation", " % of white", 100),
    "mosaic": ("mosaic, demosaiced", "RGGB, bilinear", "", 1), "jpeg": ("JPEG", "quality", "", 1),
}  # fmt: skip
"""By step: its name, what its strength measures, the unit, and the unit's factor."""
_GAP, _BAR, _LEFT = 8, 24, 170


def draw_sheet(hr: np.ndarray, settings: Camera, seed: int) -> np.ndarray:
    """The sheet, (H, W, 3) uint8.

    Args:
        hr: (H, W, 3) uint8, both sides at least 200.
        settings: whose ranges are shown.
        seed: the same place, direction and noise for the three strengths of a step.

    Raises:
        ValueError: another shape or dtype, or a smaller photograph.
    """
    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8 or min(hr.shape[:2]) < SIDE:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3), at least {SIDE} a side, is needed")
    rows = [(ROWS[step][0], _strengths(hr, settings, step, seed)) for step in STEPS]
    rows += [("the chain, as set", _chain(hr, settings, seed))]
    rows += [("second order", _chain(hr, settings, seed, second=1.0))]
    width = _LEFT + 4 * (SIDE + _GAP)
    canvas = Image.new("RGB", (width, (SIDE + _BAR + _GAP) * len(rows) + _GAP), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, pictures) in enumerate(rows):
        top = _GAP + number * (SIDE + _BAR + _GAP)
        draw.text((_GAP, top + _BAR + SIDE // 2 - 8), label, fill=INK, font=font)
        for column, (caption, picture) in enumerate(pictures):
            left = _LEFT + column * (SIDE + _GAP)
            draw.text((left, top + 3), caption, fill=INK, font=font)
            canvas.paste(Image.fromarray(picture), (left, top + _BAR))
    return np.asarray(canvas)


def _strengths(hr: np.ndarray, settings: Camera, step: Step, seed: int) -> list[tuple[str, np.ndarray]]:
    """Caption and picture of the original and of three strengths."""
    shown = _whole(hr) if step in OPTICS else _detail(hr)  # optics span the picture
    pictures = [("original", shown)]
    if step == "mosaic":
        strengths = [0.0]
    else:
        least, most = getattr(settings, step)
        strengths = [least, (least + most) / 2, most]
    for strength in strengths:
        made = apply_step(shown.astype(np.float32) / 255, step, strength, np.random.default_rng(seed))
        pictures.append((caption(step, strength), np.rint(made * 255).astype(np.uint8)))
    return pictures


def _chain(hr: np.ndarray, settings: Camera, seed: int, second: float | None = None) -> list[tuple[str, np.ndarray]]:
    """Three inputs of the whole chain at x4, each enlarged by repetition."""
    if second is not None:
        settings = replace(settings, second_order=second)
    shown = _detail(hr)
    inputs = [settings(shown, 4, np.random.default_rng((seed, number))) for number in range(3)]
    return [("original", shown), *((f"seed {seed}.{i}", enlarge(lr, 4, "nearest")) for i, lr in enumerate(inputs))]


def caption(step: Step, strength: float) -> str:
    """A strength with what it measures and its unit."""
    _, measure, unit, factor = ROWS[step]
    value = 100 - strength if step == "jpeg" else strength * factor
    return f"{measure} {value:.3g}{unit}" if step != "mosaic" else measure


def _whole(hr: np.ndarray) -> np.ndarray:
    side = min(hr.shape[:2])
    top, left = ((length - side) // 2 for length in hr.shape[:2])
    square = Image.fromarray(np.ascontiguousarray(hr[top : top + side, left : left + side]))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _detail(hr: np.ndarray) -> np.ndarray:
    """The square with the most structure."""
    green = hr[..., 1].astype(np.float32)
    structure = np.abs(green - ndimage.gaussian_filter(green, 4))
    around = ndimage.uniform_filter(structure, SIDE, mode="constant")
    row, column = np.unravel_index(around.argmax(), around.shape)
    top, left = (int(np.clip(at - SIDE // 2, 0, n - SIDE)) for at, n in zip((row, column), hr.shape[:2], strict=True))
    return np.ascontiguousarray(hr[top : top + SIDE, left : left + SIDE])
