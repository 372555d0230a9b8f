"""The contact sheet of a degradation: every step at its least, middle and greatest strength, and the whole chain."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.degradation.pipeline import OPTICS, STEPS, Camera, Step, apply_step
from retinashift.imaging.figures import INK, PAPER, busiest

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
    """The sheet, (H, W, 3) uint8; the three strengths of a step have the same place, direction and noise."""
    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8 or min(hr.shape[:2]) < SIDE:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3), at least {SIDE} a side, is needed")
    whole = np.asarray(ImageOps.fit(Image.fromarray(hr), (SIDE, SIDE), Image.Resampling.LANCZOS))
    green = hr[..., 1].astype(np.float32)
    detail = np.ascontiguousarray(hr[busiest(np.hypot(*np.gradient(green)), SIDE)])
    rows = {ROWS[s][0]: _strengths(whole if s in OPTICS else detail, settings, s, seed) for s in STEPS}
    rows["the chain, as set"] = _chain(detail, settings, seed)
    rows["second order"] = _chain(detail, replace(settings, second_order=1.0), seed)
    size = (_LEFT + 4 * (SIDE + _GAP), (SIDE + _BAR + _GAP) * len(rows) + _GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, pictures) in enumerate(rows.items()):
        top = _GAP + number * (SIDE + _BAR + _GAP)
        draw.text((_GAP, top + _BAR + SIDE // 2 - 8), label, fill=INK, font=font)
        for column, (text, picture) in enumerate(pictures.items()):
            left = _LEFT + column * (SIDE + _GAP)
            draw.text((left, top + 3), text, fill=INK, font=font)
            canvas.paste(Image.fromarray(picture), (left, top + _BAR))
    return np.asarray(canvas)


def _strengths(shown: np.ndarray, settings: Camera, step: Step, seed: int) -> dict[str, np.ndarray]:
    """The original and three strengths, by caption."""
    least, most = (0.0, 0.0) if step == "mosaic" else getattr(settings, step)
    pictures = {"original": shown}
    for strength in (least, (least + most) / 2, most):
        made = apply_step(shown.astype(np.float32) / 255, step, strength, np.random.default_rng(seed))
        pictures[caption(step, strength)] = np.rint(made * 255).astype(np.uint8)
    return pictures


def _chain(shown: np.ndarray, settings: Camera, seed: int) -> dict[str, np.ndarray]:
    """The original and three inputs of the whole chain at x4, each enlarged by repetition, by caption."""
    inputs = {f"seed {seed}.{i}": settings(shown, 4, np.random.default_rng((seed, i))) for i in range(3)}
    return {"original": shown, **{name: enlarge(lr, 4, "nearest") for name, lr in inputs.items()}}


def caption(step: Step, strength: float) -> str:
    """A strength with what it measures and its unit."""
    _, measure, unit, factor = ROWS[step]
    value = round(100 - strength) if step == "jpeg" else strength * factor
    return f"{measure} {value:.3g}{unit}" if step != "mosaic" else measure
