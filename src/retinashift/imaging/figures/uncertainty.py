"""Uncertainty as files: a 16-bit TIFF for programs, a coloured overlay for people."""

import json
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ExifTags import Base
from scipy import ndimage

from retinashift.imaging.figures.comparison import DETAIL, SIDE, busiest, shown, side_by_side
from retinashift.imaging.figures.plot import INK, PAPER
from retinashift.imaging.formats.exif import dump_exif
from retinashift.imaging.formats.tiff import encode_tiff
from retinashift.imaging.fundus import LUMA
from retinashift.imaging.photograph import Photograph

FULL_SCALE = 65535
"""Largest stored integer. Stored values are standard deviations of a 16-bit picture: 257 is one level of 255."""
BRIGHTEST = 8.0
"""Levels of 255 at which the overlay's colours end."""
OPAQUE = 0.75
_STOPS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float32)
"""Viridis at five places: even in brightness, and readable by the colour-blind."""


def encode_map(sigma: np.ndarray, account: dict[str, Any], provenance: str = "") -> bytes:
    """A TIFF of one channel, 16 bit, of `sigma`, (H, W) in shares of full scale.

    `account` goes into the ImageDescription as one line of JSON, with the unit; `provenance` is the result's.
    """
    description = {"unit": "standard deviation, 1/65535 of full scale; 257 is one level of 255", **account}
    exif = dump_exif({Base.ImageDescription: json.dumps(description), Base.Software: "RetinaShift"})
    return encode_tiff(Photograph(stored_deviations(sigma), exif=exif, provenance=provenance))


def stored_deviations(sigma: np.ndarray) -> np.ndarray:
    """(H, W) uint16 of shares of full scale."""
    stored = np.empty(sigma.shape, np.uint16)
    for top in range(0, len(sigma), 256):
        stored[top : top + 256] = np.rint(np.clip(sigma[top : top + 256], 0, 1) * FULL_SCALE)
    return stored


def overlay(pixels: np.ndarray, sigma: np.ndarray, caption: str) -> np.ndarray:
    """The result in grey, uncertainty over it in colour, and a legend below: (H + legend, W, 3) uint8.

    `sigma`, (H, W), is in shares of full scale; `caption` says what the colours mean.
    """
    height, width = sigma.shape
    bar = max(28, min(64, width // 12))
    picture = np.empty((height + bar, width, 3), np.uint8)
    for top in range(0, height, 256):
        rows = slice(top, min(height, top + 256))
        level = np.clip(sigma[rows] * (255 / BRIGHTEST), 0, 1)[..., None]  # (n, W, 1)
        veil = OPAQUE * np.sqrt(level)
        grey = shown(pixels[rows]) @ np.asarray(LUMA, np.float32)[:, None]  # (n, W, 1)
        picture[rows] = np.rint((1 - veil) * grey + veil * _colour(level[..., 0]))
    picture[height:] = _legend(width, bar, caption)
    return picture


def map_and_error(result: np.ndarray, sigma: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Result, uncertainty map and true error side by side: whole above, below it the detail of the largest errors.

    `sigma`, (H, W), and `errors`, (H, W, 3), are levels of 255. The error is the root mean square over colours and 5x5.
    """
    error = np.sqrt(ndimage.uniform_filter((errors**2).mean(2), 5))  # (H, W)
    detail = busiest(np.minimum(error, BRIGHTEST), SIDE // DETAIL)
    maps = [np.rint(_colour(np.clip(x / BRIGHTEST, 0, 1))).astype(np.uint8) for x in (sigma, error)]
    named = {"result": result, f"uncertainty map, 0 to {BRIGHTEST:g} levels": maps[0], "true error": maps[1]}
    return side_by_side(named, detail, SIDE)


def _colour(level: np.ndarray) -> np.ndarray:
    """(n, W) in [0, 1] -> (n, W, 3)."""
    place = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(level, place, _STOPS[:, channel]) for channel in range(3)], axis=-1)


def _legend(width: int, height: int, caption: str) -> np.ndarray:
    """The colours with their levels, and what they mean: (height, width, 3) uint8."""
    strip = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=max(9, height * 3 // 8))
    left, right = height // 2, height // 2 + width // 3
    ramp = np.linspace(0, 1, right - left)[None]
    veil = OPAQUE * np.sqrt(ramp)[..., None]
    colours = np.rint((1 - veil) * 96 + veil * _colour(ramp)).astype(np.uint8)  # over a middle grey
    strip.paste(Image.fromarray(np.repeat(colours, height // 3, 0)), (left, height // 8))
    for share in (0, 1 / 4, 1 / 2, 1):
        level = f"{BRIGHTEST * share:g}{'+' if share == 1 else ''}"
        draw.text((left + (right - left) * share, height - 2), level, fill=INK, font=font, anchor="mb")
    text, room = caption.replace(", ", "\n", 1), width - right - height
    wide = draw.multiline_textbbox((0, 0), text, font=font)[2]
    fitting = ImageFont.load_default(size=max(7, height * 3 / 8 * min(1, room / max(1, wide))))
    draw.multiline_text((right + height // 2, height // 2), text, fill=INK, font=fitting, anchor="lm")
    return np.asarray(strip)
