"""A picture of a result beside its input, for people without a browser."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinashift.imaging.degradation.bicubic import enlarge

SIDE, BAR, GAP = 480, 30, 8
DETAIL = 4
"""The lower row is the middle, this many screen pixels to a pixel of the result."""


def compared(lr: np.ndarray, sr: np.ndarray, scale: int) -> np.ndarray:
    """Input, bicubic and result side by side: whole above, the middle below.

    Args:
        lr: the input, (h, w) or (h, w, C), uint8 or uint16.
        sr: the result, scale times as high and wide.
        scale: of the result.

    Returns:
        (H, W, 3) uint8, of one size whatever the inputs'.
    """
    lr, sr = _shown(lr), _shown(sr)
    pictures = {
        "input": enlarge(lr, scale, "nearest"),
        "bicubic": enlarge(lr, scale, "bicubic"),
        "RetinaShift": sr,
    }
    canvas = Image.new("RGB", (GAP + 3 * (SIDE + GAP), BAR + 2 * (SIDE + GAP)), (17, 17, 17))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    height, width = sr.shape[:2]
    piece = max(1, min(SIDE // DETAIL, height, width))
    top, left = (height - piece) // 2, (width - piece) // 2
    for column, (caption, pixels) in enumerate(pictures.items()):
        x = GAP + column * (SIDE + GAP)
        draw.text((x, 7), caption, fill=(230, 230, 230), font=font)
        whole = Image.fromarray(pixels)
        whole.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        canvas.paste(whole, (x, BAR))
        detail = Image.fromarray(np.ascontiguousarray(pixels[top : top + piece, left : left + piece]))
        canvas.paste(detail.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, BAR + SIDE + GAP))
    return np.asarray(canvas)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """8-bit RGB (H, W, 3) without alpha."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
