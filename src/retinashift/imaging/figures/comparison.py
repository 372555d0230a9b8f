"""Pictures side by side, for people without a browser: results beside their input, methods beside one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinashift.imaging.degradation.bicubic import resize

SIDE, BAR, GAP = 480, 30, 8
DETAIL = 4
"""Screen pixels to a pixel of the result in the lower row."""
_INK, _PAPER = (230, 230, 230), (17, 17, 17)


def side_by_side(
    pictures: Mapping[str, np.ndarray], detail: tuple[slice, slice], side: int, *, marked: bool = False
) -> np.ndarray:
    """Pictures under their captions: whole above, the same detail below.

    Args:
        pictures: by caption, each (h, w, 3) uint8.
        detail: rows and columns of the lower row.
        side: of a square on the canvas, in pixels; a whole picture fits into it, the detail fills it.
        marked: draw a frame around the detail in the whole pictures.

    Returns:
        (H, W, 3) uint8, of one size for one number of pictures.
    """
    canvas = Image.new("RGB", (GAP + len(pictures) * (side + GAP), BAR + 2 * (side + GAP)), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    rows, columns = detail
    for number, (caption, pixels) in enumerate(pictures.items()):
        left = GAP + number * (side + GAP)
        draw.text((left, 7), caption, fill=_INK, font=font)
        whole = Image.fromarray(pixels)
        whole.thumbnail((side, side), Image.Resampling.LANCZOS)
        canvas.paste(whole, (left, BAR))
        if marked:
            shrink = whole.width / pixels.shape[1]
            corners = ((columns.start, rows.start), (columns.stop, rows.stop))
            draw.rectangle([(round(x * shrink) + left, round(y * shrink) + BAR) for x, y in corners], outline=_INK)
        piece = Image.fromarray(np.ascontiguousarray(pixels[detail]))
        canvas.paste(piece.resize((side, side), Image.Resampling.NEAREST), (left, BAR + side + GAP))
    return np.asarray(canvas)


def compared(lr: np.ndarray, sr: np.ndarray) -> np.ndarray:
    """Input, bicubic and result side by side: whole above, the middle below.

    Args:
        lr: the input, (h, w) or (h, w, C), uint8 or uint16.
        sr: the result, of any size.

    Returns:
        (H, W, 3) uint8, of one size whatever the inputs'.
    """
    lr, sr = _shown(lr), _shown(sr)
    height, width = sr.shape[:2]
    pictures = {
        "input": resize(lr, (height, width), "nearest"),
        "bicubic": resize(lr, (height, width), "bicubic"),
        "RetinaShift": sr,
    }
    piece = max(1, min(SIDE // DETAIL, height, width))
    top, left = (height - piece) // 2, (width - piece) // 2
    return side_by_side(pictures, (slice(top, top + piece), slice(left, left + piece)), SIDE)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """8-bit RGB (H, W, 3) without alpha."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
