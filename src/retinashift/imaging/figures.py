"""Pictures for people: results beside their input, uncertainty in colour and as a 16-bit TIFF, curves, contact sheets.

All are drawn by Pillow, so that no plotting library is needed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ExifTags import Base
from PIL.Image import Resampling
from scipy import ndimage

from retinashift.imaging.degradation.bicubic import enlarge, resize
from retinashift.imaging.degradation.pipeline import OPTICS, STEPS, Camera, Step, apply_step
from retinashift.imaging.formats.exif import dump_exif
from retinashift.imaging.formats.tiff import encode_tiff
from retinashift.imaging.fundus import LUMA
from retinashift.imaging.photograph import Photograph

PAPER, INK, GRID = (255, 255, 255), (28, 36, 48), (222, 226, 231)
SIDE, BAR, GAP, FOOT = 480, 46, 8, 26
"""Of the canvas in pixels: a square, the captions, the gaps, and the note below."""
DETAIL = 4
"""Screen pixels to a pixel of the result in the lower row."""
MARK = (255, 214, 10)
"""Colour of the frame around the detail."""
COLOURS = ((29, 78, 216), (194, 65, 12), (15, 118, 110), (109, 40, 217))
_LEFT, _RIGHT, _UPPER, _LOWER = 90, 40, 70, 80  # margins in pixels
FULL_SCALE = 65535
"""Largest stored integer. Stored values are standard deviations of a 16-bit picture: 257 is one level of 255."""
BRIGHTEST = 8.0
"""Levels of 255 at which the overlay's colours end."""
OPAQUE = 0.75
_STOPS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float32)
"""Viridis at five places: even in brightness, and readable by the colour-blind."""
CELL = 200
"""Pixels of a picture, a side, on the contact sheet of a degradation."""
SHEET_ROWS: dict[Step, tuple[str, str, str, int]] = {
    "light": ("uneven light", "light", " %", 100), "haze": ("haze", "scattered", " %", 100),
    "spots": ("spots", "brightness", " %", 100), "isotropic": ("Gaussian blur", "sigma", " px", 1),
    "anisotropic": ("anisotropic blur", "sigma", " px", 1), "defocus": ("defocus", "radius", " px", 1),
    "motion": ("motion", "length", " px", 1), "noise": ("sensor noise", "deviation", " % of white", 100),
    "mosaic": ("mosaic, demosaiced", "RGGB, bilinear", "", 1), "jpeg": ("JPEG", "quality", "", 1),
}  # fmt: skip
"""By step: its name, what its strength measures, the unit, and the unit's factor."""
_SHEET_BAR, _SHEET_LEFT = 24, 170  # of a caption, and of the names of the steps


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

    The figure, (H, W, 3) uint8, has one size. With `sigma`, the result's uncertainty, (H, W), the crop has most of it.
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
    differences = (np.abs(one[band].astype(np.float32) - other[band]).mean(-1) for band in bands)
    return np.concatenate([_block_means(difference, block) for difference in differences])


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


def encode_map(sigma: np.ndarray, account: dict[str, Any], provenance: str = "") -> bytes:
    """A TIFF of one channel, 16 bit, of `sigma`, (H, W) in shares of full scale; `provenance` is the result's.

    `account` goes into the ImageDescription as one line of JSON, with the unit.
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
    for rows in (slice(top, min(height, top + 256)) for top in range(0, height, 256)):
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


def draw_curves(curves: Mapping[str, Sequence[float]], *, across: str) -> np.ndarray:
    """Curves over 1, 2, 3, ..., from 0 to a round number that none exceeds; each has two values or more.

    >>> draw_curves({"sqrt(eta)": [0.1, 0.5, 0.99]}, across="step t").shape
    (640, 1200, 3)
    """
    longest = max(map(len, curves.values()))
    top, ticks = round_ticks(max(map(max, curves.values())))
    places = {name: np.arange(len(values)) / (len(values) - 1) for name, values in curves.items()}
    points = {name: [*zip(places[name], np.divide(values, top), strict=True)] for name, values in curves.items()}
    steps = {t / (longest - 1): str(t + 1) for t in range(0, longest, max(1, longest // 15))}
    return _draw(points, (1200, 640), steps, {tick / top: f"{tick:g}" for tick in ticks}, across)


def draw_against(x: Sequence[float], curves: Mapping[str, Sequence[float]], *, across: str, up: str) -> np.ndarray:
    """Curves over shares, both axes from 0 to 1, with the diagonal on which they are equal: (720, 720, 3) uint8."""
    shares = {part / 5: f"{part / 5:.0%}" for part in range(6)}
    points = {name: list(zip(x, values, strict=True)) for name, values in curves.items()}
    return _draw(points, (720, 720), shares, shares, across, up, diagonal=True)


def round_ticks(highest: float) -> tuple[float, list[float]]:
    """A round number from `highest` on, and about five round steps from 0 to it.

    >>> round_ticks(0.99), round_ticks(7)
    ((1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (8.0, [0.0, 2.0, 4.0, 6.0, 8.0]))
    """
    highest = highest if highest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= highest / 5 * 0.999)
    count = math.ceil(highest / step - 1e-9)
    return float(f"{count * step:.10g}"), [float(f"{number * step:.10g}") for number in range(count + 1)]


def _draw(
    curves: Mapping[str, Sequence[tuple[float, float]]], size: tuple[int, int], ticks_across: Mapping[float, str],
    ticks_up: Mapping[float, str], across: str, up: str = "", diagonal: bool = False,
) -> np.ndarray:  # fmt: skip
    """Curves whose points, like the ticks, are given in shares of the axes."""
    right, lower = size[0] - _RIGHT, size[1] - _LOWER
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=22)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (right - _LEFT) * x, lower - (lower - _UPPER) * y

    for share, label in ticks_up.items():
        draw.line((*place(0, share), *place(1, share)), fill=GRID)
        draw.text((_LEFT - 12, place(0, share)[1]), label, fill=INK, font=font, anchor="rm")
    for share, label in ticks_across.items():
        draw.text((place(share, 0)[0], lower + 12), label, fill=INK, font=font, anchor="ma")
    if diagonal:
        draw.line((*place(0, 0), *place(1, 1)), fill=INK)
    draw.text(((_LEFT + right) / 2, size[1] - 32), across, fill=INK, font=font, anchor="ma")
    draw.text((_LEFT, 12), up, fill=INK, font=font)
    start = float(_LEFT)
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        places = [place(x, y) for x, y in points]
        draw.line(places, fill=colour, width=4, joint="curve")
        for x, y in places:
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
        draw.text((start, 40 if up else 22), name, fill=colour, font=font)
        start += draw.textlength(name, font=font) + 40
    return np.asarray(picture)


def draw_sheet(hr: np.ndarray, settings: Camera, seed: int) -> np.ndarray:
    """Each step at three strengths, of the same place, direction and noise, and the whole chain: (H, W, 3) uint8."""
    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8 or min(hr.shape[:2]) < CELL:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3), at least {CELL} a side, is needed")
    whole = np.asarray(ImageOps.fit(Image.fromarray(hr), (CELL, CELL), Resampling.LANCZOS))
    green = hr[..., 1].astype(np.float32)
    detail = np.ascontiguousarray(hr[busiest(np.hypot(*np.gradient(green)), CELL)])
    rows = {SHEET_ROWS[s][0]: _strengths(whole if s in OPTICS else detail, settings, s, seed) for s in STEPS}
    rows["the chain, as set"] = _chain(detail, settings, seed)
    rows["second order"] = _chain(detail, replace(settings, second_order=1.0), seed)
    size = (_SHEET_LEFT + 4 * (CELL + GAP), (CELL + _SHEET_BAR + GAP) * len(rows) + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, pictures) in enumerate(rows.items()):
        top = GAP + number * (CELL + _SHEET_BAR + GAP)
        draw.text((GAP, top + _SHEET_BAR + CELL // 2 - 8), label, fill=INK, font=font)
        for column, (text, picture) in enumerate(pictures.items()):
            left = _SHEET_LEFT + column * (CELL + GAP)
            draw.text((left, top + 3), text, fill=INK, font=font)
            canvas.paste(Image.fromarray(picture), (left, top + _SHEET_BAR))
    return np.asarray(canvas)


def _strengths(picture: np.ndarray, settings: Camera, step: Step, seed: int) -> dict[str, np.ndarray]:
    """The original and three strengths, by caption."""
    least, most = (0.0, 0.0) if step == "mosaic" else getattr(settings, step)
    pictures = {"original": picture}
    for strength in (least, (least + most) / 2, most):
        made = apply_step(picture.astype(np.float32) / 255, step, strength, np.random.default_rng(seed))
        pictures[strength_caption(step, strength)] = np.rint(made * 255).astype(np.uint8)
    return pictures


def _chain(picture: np.ndarray, settings: Camera, seed: int) -> dict[str, np.ndarray]:
    """The original and three inputs of the whole chain at x4, each enlarged by repetition, by caption."""
    inputs = {f"seed {seed}.{i}": settings(picture, 4, np.random.default_rng((seed, i))) for i in range(3)}
    return {"original": picture, **{name: enlarge(lr, 4, "nearest") for name, lr in inputs.items()}}


def strength_caption(step: Step, strength: float) -> str:
    """A strength with what it measures and its unit."""
    _, measure, unit, factor = SHEET_ROWS[step]
    value = round(100 - strength) if step == "jpeg" else strength * factor
    return f"{measure} {value:.3g}{unit}" if step != "mosaic" else measure
