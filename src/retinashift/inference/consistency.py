"""Consistency of a finished result: how far it is from its input when reduced again, and the last values to settle.

Back-projection ends after a fixed number of rounds. Near white, where the limits take a correction away, one 8-bit
value in a million is then still two levels off. Further rounds are computed around these values alone.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinashift.imaging.degradation.bicubic import resize_channels
from retinashift.inference.fidelity import CELL, REACH, SPREAD, change_of, value_limits, within
from retinashift.models.codec import upsample_bicubic

WINDOW, MARGIN = 6, 4 * REACH + 2 * SPREAD  # input pixels around a value: corrected, and looked at beyond these
ROUNDS, MOST = 24, 64  # of back-projection around a value, and values that are settled in one picture
Place = tuple[int, int]


def compare_with_input(sr: np.ndarray, lr: np.ndarray, strip: int = 64) -> tuple[float, list[Place]]:
    """Compare an input with its result reduced again by Pillow, as a reader of the two files does.

    Integer results are rounded to their depth. One colour and one strip at a time, so that no second picture is held.

    Args:
        sr: (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1].
        lr: (h, w) or (h, w, 3), float in [0, 1].
        strip: rows of `lr` that are compared at a time where H is a multiple of h.

    Returns:
        PSNR in dB, inf if they are equal to within a tenth of the last bit (a float input: to 1e-6); and of an integer
        result the input pixels, (row, column), that differ by more than one level.
    """
    levels, (scale, rest) = {"uint8": 255, "uint16": 65535}.get(sr.dtype.name), divmod(len(sr), len(lr))
    strip, error, off = len(lr) if rest else strip, 0.0, set[Place]()
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
                off.update((top + row, column) for row, column in np.argwhere(difference > 1.5 / levels).tolist())
            error += float((difference**2).sum())
    mean = error / lr.size
    return -10 * math.log10(mean) if mean > 1e-12 else math.inf, sorted(off)


def settle(sr: np.ndarray, lr: Tensor, scale: int, off: Sequence[Place], bounded: bool) -> None:
    """Bring the last values that differ by more than one level closer to their input, in place.

    Args:
        sr: a result of 8 bit at its own size, (h*scale, w*scale) or (h*scale, w*scale, 3).
        lr: its input, (1, 1 or 3, h, w) in [-1, 1], on the CPU.
        off: input pixels, (row, column); nothing is done if they are more than `MOST`.
        bounded: `value_limits` hold.
    """
    limits = value_limits(lr) if bounded else None
    for place in off if len(off) <= MOST else ():
        rows, columns = (slice(max(0, at - WINDOW - MARGIN), at + WINDOW + MARGIN + 1) for at in place)
        given = lr[..., rows, columns]
        held = None if limits is None else limits[..., rows, columns]
        here = sr[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        x0 = torch.from_numpy(np.atleast_3d(here)).permute(2, 0, 1)[None].float() / 127.5 - 1  # (1, C, n, m)
        down, across = (
            (torch.arange(side) + part.start - at).abs() <= WINDOW
            for side, part, at in zip(given.shape[-2:], (rows, columns), place, strict=True)
        )
        near = down[:, None] & across  # (n / scale, m / scale)
        cell = torch.full_like(given[:, :1], CELL * 2 / 255)
        for _ in range(ROUNDS):
            x0 = within(x0 + upsample_bicubic(change_of(x0, given, scale, cell) * near, scale), held, scale)
        pixels = (x0[0] * 127.5 + 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        here[...] = pixels if sr.ndim == 3 else pixels[..., 0]
