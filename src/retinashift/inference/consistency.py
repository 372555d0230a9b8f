"""Consistency of a finished result: how far it is from its input when reduced again, and the last values to settle.

Back-projection ends after a fixed number of rounds, which suffices for most photographs. Where many values lie at their
limits, near black or white, values of a noisy photograph are then still a level off, or two.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinashift.imaging.degradation.bicubic import resize_channels
from retinashift.inference.fidelity import CELL, REACH, SPREAD, Cell, back_project_rows, change_of, value_limits, within
from retinashift.models.codec import upsample_bicubic

WINDOW, MARGIN = 10, 4 * REACH + 2 * SPREAD  # input pixels around a value: corrected, and looked at beyond these
ROUNDS, MOST = 24, 64  # of back-projection around a value, and values that are settled in one picture
ENOUGH, PASSES, MORE, BAND = 0.002, 4, 4, 16  # share of pixels that may differ; passes of more rounds; rows of a band


def compare_with_input(sr: np.ndarray, lr: np.ndarray, strip: int = 64) -> tuple[float, np.ndarray]:
    """Compare an input with its result reduced again by Pillow, as a reader of the two files does.

    Integer results are rounded to their depth. One colour and one strip at a time, so that no second picture is held.

    Args:
        sr: (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1].
        lr: (h, w) or (h, w, 3), float in [0, 1].
        strip: rows of `lr` that are compared at a time where H is a multiple of h.

    Returns:
        PSNR in dB, inf if they are equal to within a tenth of the last bit (a float input: to 1e-6); and the largest
        difference of a pixel's colours, (h, w), in levels, of a float result in shares of full scale.
    """
    levels, (scale, rest) = {"uint8": 255, "uint16": 65535}.get(sr.dtype.name), divmod(len(sr), len(lr))
    strip, error, most = len(lr) if rest else strip, 0.0, np.zeros(lr.shape[:2], np.float32)
    for top in range(0, len(lr), strip):
        bottom = min(top + strip, len(lr))
        first, last = max(0, top - REACH), min(len(lr), bottom + REACH)
        piece = np.atleast_3d(sr[first * scale : last * scale if last < len(lr) else None])
        for colour, given in zip(np.moveaxis(piece, -1, 0), np.moveaxis(np.atleast_3d(lr), -1, 0), strict=True):
            plane = colour if levels == 255 else colour.astype(np.float32)
            small = resize_channels(plane, (last - first, lr.shape[1]), Image.Resampling.BICUBIC).astype(np.float64)
            small = np.rint(small).clip(0, levels) / levels if levels else small
            difference = np.abs(small[top - first : bottom - first] - given[top:bottom])
            if levels:  # inputs of that depth went through float32, so that what is left below the last bit is nothing
                difference[difference < 0.1 / levels] = 0
            error += float((difference**2).sum())
            most[top:bottom] = np.maximum(most[top:bottom], difference * (levels or 1))
    mean = error / lr.size
    return -10 * math.log10(mean) if mean > 1e-12 else math.inf, most


def settle(
    sr: np.ndarray, lr: Tensor, scale: int, bounded: bool, cell: Cell, compare: Callable[[], tuple[float, np.ndarray]]
) -> float:
    """Go on with the back-projection of a result of 8 bit, in place, where values still differ from their input.

    Args:
        sr: at its own size, (h*scale, w*scale) or (h*scale, w*scale, 3).
        lr: its input, (1, 1 or 3, h, w) in [-1, 1].
        bounded: `value_limits` hold.
        cell: of `back_project_rows`.
        compare: it with its input, see `compare_with_input`.

    Returns:
        PSNR of the comparison.
    """
    limits, inside = value_limits(lr) if bounded else None, cell(0, lr.shape[-2])[0, 0].cpu().numpy() > 0
    decibel, off = compare()
    for _ in range(PASSES):
        if (off * inside > 0.5).mean() <= ENOUGH:
            break
        bands = (_picture(sr[top : top + BAND * scale], lr) for top in range(0, len(sr), BAND * scale))
        row = 0
        for rows in back_project_rows(bands, lr, scale, MORE, limits, cell):  # they come out later than they go in
            row = _write(sr, rows, row)
        decibel, off = compare()
    for _ in range(PASSES):  # what settles one value may disturb another
        places = np.argwhere(off * inside > 1.5).tolist()
        if not places or len(places) > MOST:
            break
        for place in places:
            _settle_around(place, sr, lr, scale, limits)
        decibel, off = compare()
    return decibel


def _settle_around(place: list[int], sr: np.ndarray, lr: Tensor, scale: int, limits: Tensor | None) -> None:
    """Back-project what lies around the input pixel `place`, (row, column), in place; arguments as in `settle`."""
    window = [slice(max(0, at - WINDOW - MARGIN), at + WINDOW + MARGIN + 1) for at in place]
    vertical, horizontal = window
    given = lr[..., vertical, horizontal]
    held = None if limits is None else limits[..., vertical, horizontal]
    here = sr[tuple(slice(part.start * scale, part.stop * scale) for part in window)]
    x0 = _picture(here, lr)  # (1, C, n, m)
    down, across = (
        (torch.arange(side, device=lr.device) + part.start - at).abs() <= WINDOW
        for side, part, at in zip(given.shape[-2:], window, place, strict=True)
    )
    near, wide = down[:, None] & across, torch.full_like(given[:, :1], CELL * 2 / 255)
    for _ in range(ROUNDS):
        change = change_of(x0, given, scale, wide, held) * near
        x0 = within(x0 + upsample_bicubic(change, scale), held, scale)
    _write(here, x0, 0)


def _picture(pixels: np.ndarray, like: Tensor) -> Tensor:
    """(n, m) or (n, m, C) uint8 -> (1, C, n, m) in [-1, 1]."""
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None].to(like) / 127.5 - 1


def _write(pixels: np.ndarray, rows: Tensor, top: int) -> int:
    """Rows (1, C, n, m) in [-1, 1] into pixels from row `top` on; returns the row after them."""
    band = (rows[0] * 127.5 + 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    pixels[top : top + len(band)] = band if pixels.ndim == 3 else band[..., 0]
    return top + len(band)
