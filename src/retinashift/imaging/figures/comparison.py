"""Pictures side by side, for people without a browser: results beside their input, methods beside one another."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Resampling

from retinashift.imaging.degradation.bicubic import resize
from retinashift.imaging.figures.plot import INK, PAPER

SIDE, BAR, GAP, FOOT = 480, 46, 8, 26
"""Of the canvas in pixels: a square, the captions, the gaps, and the note below."""
DETAIL = 4
"""Screen pixels to a pixel of the result in the lower row."""
MARK = (255, 214, 10)
"""Colour of the frame around the detail."""


def side_by_side(
    pictures: Mapping[str, np.ndarray], detail: tuple[slice, slice], side: int, *, note: str = ""
) -> np.ndarray:
    """Pictures under their captions: whole above, with a frame around the detail, and the same detail below.

    Pictures are (h, w, 3) uint8. A smaller one, such as an input, shows the same part in its own pixels. `detail`
    counts in pixels of the largest; `side` is a square on the canvas, into which a whole picture fits.
    """
    size = (GAP + len(pictures) * (side + GAP), BAR + 2 * (side + GAP) + FOOT)
    canvas = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    largest = max(pixels.shape[1] for pixels in pictures.values())
    corners = ((detail[1].start, detail[0].start), (detail[1].stop, detail[0].stop))
    for number, (caption, pixels) in enumerate(pictures.items()):
        left = GAP + number * (side + GAP)
        draw.multiline_text((left, 4), caption, fill=INK, font=font, spacing=2)
        height, width = pixels.shape[:2]
        share = side / max(height, width)
        fitted = max(1, round(width * share)), max(1, round(height * share))
        whole = Image.fromarray(pixels).resize(fitted, Resampling.LANCZOS if share < 1 else Resampling.BICUBIC)
        canvas.paste(whole, (left, BAR))
        frame = [(left + round(x * whole.width / largest), BAR + round(y * whole.width / largest)) for x, y in corners]
        draw.rectangle(frame, outline=MARK, width=2)
        own = width / largest  # pixels of this picture to one of the largest
        rows, columns = (slice(round(part.start * own), max(1, round(part.stop * own))) for part in detail)
        piece = Image.fromarray(np.ascontiguousarray(pixels[rows, columns]))
        canvas.paste(piece.resize((side, side), Resampling.NEAREST), (left, BAR + side + GAP))
    draw.text((GAP, size[1] - FOOT + 2), note, fill=INK, font=font)
    return np.asarray(canvas)


def compared(lr: np.ndarray, sr: np.ndarray, *, caption: str = "", sigma: np.ndarray | None = None) -> np.ndarray:
    """Input, bicubic and result side by side: whole, and the crop where the result differs most from bicubic.

    The figure, (H, W, 3) uint8, has one size whatever the inputs'. With `sigma`, the uncertainty of the result, (H, W),
    the crop is where it is largest.
    """
    lr, sr = shown(lr), shown(sr)
    plain, block = resize(lr, sr.shape[:2], "bicubic"), max(1, round(len(sr) / len(lr)))
    change = _block_means(sigma, block) if sigma is not None else changed(sr, plain, block)
    size = "{1}x{0}".format(*sr.shape[:2])
    pictures = {
        f"input\n{lr.shape[1]}x{lr.shape[0]}": lr,
        f"bicubic\n{size}": plain,
        f"RetinaShift\n{size}{', ' if caption else ''}{caption}": sr,
    }
    why = "is most uncertain" if sigma is not None else "differs most from bicubic"
    note = f"Framed, and enlarged below: where the result {why}. Finer detail is estimated, not observed."
    return side_by_side(pictures, busiest(change, SIDE // DETAIL, block), SIDE, note=note)


def changed(one: np.ndarray, other: np.ndarray, block: int = 1) -> np.ndarray:
    """Mean absolute difference of two pictures (H, W, 3) uint8 in blocks of that side, (H // block, W // block)."""
    bands = (slice(top, top + 64 * block) for top in range(0, len(one), 64 * block))  # large results stay small here
    parts = [_block_means(np.abs(one[band].astype(np.float32) - other[band]).mean(-1), block) for band in bands]
    return np.concatenate(parts)


def busiest(amount: np.ndarray, side: int, block: int = 1) -> tuple[slice, slice]:
    """Rows and columns of the square of that side in pixels, or less, with the greatest sum of `amount`.

    `amount` has one value for each square of `block` pixels a side; windows begin at the border of a square.
    """
    count = max(1, min(side // block, *amount.shape))
    sums = np.pad(amount.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[count:, count:] - sums[:-count, count:] - sums[count:, :-count] + sums[:-count, :-count]
    top, left = (int(at) * block for at in np.unravel_index(inside.argmax(), inside.shape))
    return slice(top, top + count * block), slice(left, left + count * block)


def _block_means(amount: np.ndarray, block: int) -> np.ndarray:
    height, width = (side // block for side in amount.shape)
    return amount[: height * block, : width * block].reshape(height, block, width, block).mean((1, 3))


def shown(pixels: np.ndarray) -> np.ndarray:
    """8-bit RGB (H, W, 3) without alpha, for figures and scores only."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
