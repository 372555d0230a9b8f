"""Faithfulness to the input: a result that is reduced again must give the input back.

A network's estimate can drift by a grey level here or there, in colour or in brightness. Iterative back-projection
(Irani, Peleg, 1991) puts that right: what the reduced result lacks is interpolated and added. It changes what the input
has measured, the coarse structure, and leaves the estimated detail as it is.

A value of an 8-bit input stands for all values that round to it. To meet the value itself would copy its rounding error
into the result, which on soft photographs is as strong as the detail. Only what lies outside this rounding cell is
corrected, so that the result, reduced and rounded as Pillow does it, is the input to the bit.

Whatever the weights are, a value of the result stays near what was seen: within the span of the input pixels around it,
a little widened (`value_limits`). The limits are applied inside each round of back-projection, after its correction, so
that they hold of the final result, and each round corrects what the limits took away in the round before. Where the two
contradict each other, the limits win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from retinashift.imaging.degradation.bicubic import resize_channels
from retinashift.models.codec import upsample_bicubic

REACH = 2
"""How many input pixels beyond its own a reduced pixel looks: half the width of the bicubic kernel."""
SPAN, LEVELS = 0.5, 4.0
"""A value lies within `SPAN` times the span of its input neighbourhood and `LEVELS` of 255 levels beyond that span."""
ROUNDING = 0.5
"""Levels of 255 that the limits leave to the rounding of an 8-bit result."""
CELL = 0.3
"""Levels of 255 by which a reduced 8-bit result may miss the input's value: less than half a level, because the
correction itself is rounded when the result is written. Chosen on validation photographs."""
SOLVER_STEPS, RELAXATION = 3, 1.3
"""What is added to a result is interpolated and reduced again before it meets the input. That weakens its finest
octave; this many steps on the grid of the input make up for it."""
CLOSED = 0.75
"""Share of what is missing that is added where the cell is closed: beside lines that are drawn on a photograph, the
whole of it rings."""
SPREAD = 2
"""Input pixels that a pixel's correction, interpolated and reduced again, reaches with more than 0.2 % of its value."""
Limits = tuple[Tensor, Tensor]
Cell = Callable[[int, int], Tensor]
"""(top, bottom) -> half the width of the rounding cell of these input rows, (1, 1, n, w), 0 where the value counts."""


def value_limits(lr: Tensor) -> Limits:
    """Least and largest value that a result may have at each input pixel, each as `lr`.

    With m and M the least and largest value of the 5x5 input pixels around, per channel, a result written with 8 bits
    or more lies in [m - SPAN (M - m) - LEVELS, M + SPAN (M - m) + LEVELS]; bicubic interpolation always does.

    Args:
        lr: (B, C, h, w) in [-1, 1].
    """
    least, most = -F.max_pool2d(-lr, 5, stride=1, padding=2), F.max_pool2d(lr, 5, stride=1, padding=2)
    room = SPAN * (most - least) + (LEVELS - ROUNDING) * 2 / 255
    return (least - room).clamp(min=-1), (most + room).clamp(max=1)


def within(sr: Tensor, limits: Limits | None, scale: int) -> Tensor:
    """`sr` cut off at its limits, at -1 and 1 where there are none. What is not a number becomes the least value.

    Args:
        sr: (B, C, h*scale, w*scale). limits: (B, C, h, w) each.
    """
    if limits is None:
        return sr.clamp(-1, 1)
    # one row of limits serves `scale` rows of the result, so that values lie beside one another where they are compared
    least, most = (limit.repeat_interleave(scale, -1)[..., None, :] for limit in limits)  # (B, C, h, 1, W)
    blocks = sr.nan_to_num(nan=-1).unflatten(-2, (-1, scale))  # (B, C, h, scale, W); fmax is eight times as slow
    return torch.clamp(blocks, least, most, out=blocks).flatten(-3, -2)


def _change(sr: Tensor, lr: Tensor, scale: int, cell: Tensor | None) -> Tensor:
    """What is to be interpolated and added to `sr`, as `lr`."""
    if cell is None:
        return lr - reduced(sr, *lr.shape[-2:])
    # Pillow reduces the width first, and rounds after each direction
    levels = reduced(_levels(sr), sr.shape[-2], lr.shape[-1]).round_().clamp_(0, 255)  # (B, C, h*scale, w)
    missing = lr - (reduced(levels, *lr.shape[-2:]) / 127.5 - 1)
    change = torch.zeros_like(missing)
    for step in range(SOLVER_STEPS):
        left = missing - _interpolated_and_reduced(change, scale) if step else missing
        change = change + RELAXATION * (left - left.clamp(-cell, cell))
    return torch.where(cell > 0, change, CLOSED * missing)


def reduced(image: Tensor, height: int, width: int) -> Tensor:
    """The antialiased bicubic reduction of the protocol, in floating point and not clamped, (B, C, height, width)."""
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)


def _levels(image: Tensor) -> Tensor:
    """As it is when it is written with 8 bits, 0 to 255."""
    return image.mul(127.5).add_(127.5).round_()


def _interpolated_and_reduced(image: Tensor, scale: int) -> Tensor:
    """`image` (B, C, h, w), interpolated and reduced again, without the large picture; its border is approximate."""
    for dim, pad in ((-1, (SPREAD, SPREAD, 0, 0)), (-2, (0, 0, SPREAD, SPREAD))):
        padded, size = F.pad(image, pad, mode="replicate"), image.shape[dim]
        first, *others = (weight * padded.narrow(dim, at, size) for at, weight in enumerate(spread_weights(scale)))
        image = sum(others, first)
    return image


@cache
def spread_weights(scale: int) -> tuple[float, ...]:
    """What a pixel of a line, interpolated and reduced again, becomes: at itself and `SPREAD` pixels on both sides."""
    line = torch.zeros(1, 1, 1, 6 * SPREAD + 1)
    line[..., 3 * SPREAD] = 1
    large = upsample_bicubic(line.expand(1, 1, line.shape[-1], -1), scale)
    weights = reduced(large, *line.shape[-1:] * 2)[0, 0, 3 * SPREAD, 2 * SPREAD : 4 * SPREAD + 1]
    return tuple((weights / weights.sum()).tolist())


def back_project_rows(
    bands: Iterator[Tensor],
    lr: Tensor,
    scale: int,
    iterations: int,
    limits: Limits | None = None,
    cell: Cell | None = None,
) -> Iterator[Tensor]:
    """Bring a picture closer to those whose bicubic reduction is `lr`; the same numbers in bands of any height.

    Args:
        bands: rows of the picture, (B, C, n*scale, w*scale) each, top to bottom, in [-1, 1]; they come out a few rows
            later.
        lr: (B, C, h, w) in [-1, 1].
        scale: of the picture; the reduction is `bicubic-pillow`, in floating point.
        iterations: how often; with 0 only the limits are applied.
        limits: of the values, see `value_limits`; None is -1 and 1.
        cell: of an 8-bit `lr` whose result is written with 8 bits; asked only for rows whose bands have come. None
            meets the values of `lr`.
    """
    if iterations or limits is not None:
        bands = _limited(bands, limits, scale)  # what is cut off later would be missing from the reduced result
    for _ in range(iterations):
        bands = _one_iteration(bands, lr, scale, limits, cell)
    return bands


def _limited(bands: Iterator[Tensor], limits: Limits | None, scale: int) -> Iterator[Tensor]:
    top = 0
    for rows in bands:
        bottom = top + rows.shape[-2] // scale
        yield within(rows, _part(limits, slice(top, bottom)), scale)
        top = bottom


def _part(limits: Limits | None, rows: slice) -> Limits | None:
    return limits and (limits[0][..., rows, :], limits[1][..., rows, :])


def _one_iteration(
    bands: Iterator[Tensor], lr: Tensor, scale: int, limits: Limits | None, cell: Cell | None
) -> Iterator[Tensor]:
    halo = 2 * REACH  # a correction is interpolated from corrections around it, each reduced from rows around it
    if cell is not None:
        halo += SPREAD * (SOLVER_STEPS - 1)
    for held, seen, new in with_neighbours(bands, lr.shape[-2], scale, halo):
        change = _change(held, lr[..., seen, :], scale, cell and cell(seen.start, seen.stop))
        here = slice((new.start - seen.start) * scale, (new.stop - seen.start) * scale)
        yield within(held[..., here, :] + upsample_bicubic(change, scale)[..., here, :], _part(limits, new), scale)
        del held, change  # or they live on while the next are made


def with_neighbours(
    bands: Iterator[Tensor], height: int, scale: int, halo: int
) -> Iterator[tuple[Tensor, slice, slice]]:
    """Bands of a picture with the rows around them that an operation looks at.

    Args:
        bands: (B, C, n*scale, W) each, top to bottom.
        height: of the input, whose rows are `scale` times as high as those of the picture.
        halo: input rows that are needed above and below.

    Returns:
        Rows of the picture, the input rows that they belong to, and the input rows among them that can now be computed.
    """
    held, top, done = None, 0, 0  # done: input rows that were given out
    for rows in bands:
        held = rows if held is None else torch.cat([held, rows], dim=-2)
        del rows
        bottom = top + held.shape[-2] // scale
        ready = bottom if bottom == height else bottom - halo
        if ready > done:
            yield held, slice(top, bottom), slice(done, ready)
            done, first = ready, max(0, ready - halo)
            held, top = held[..., (first - top) * scale :, :].clone(), first


def consistency_db(sr: np.ndarray, lr: np.ndarray, strip: int = 64) -> float:
    """PSNR in dB between an input and its result reduced again by Pillow, as a reader of the two files measures it.

    Integer results are rounded to their depth. One colour and one strip at a time, so that no second picture is held.

    Args:
        sr: (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1].
        lr: (h, w) or (h, w, 3), float in [0, 1].
        strip: rows of `lr` that are compared at a time where H is a multiple of h.

    Returns:
        inf if they are equal to within a tenth of the last bit (a float input: to 1e-6).
    """
    levels, (scale, rest) = {"uint8": 255, "uint16": 65535}.get(sr.dtype.name), divmod(len(sr), len(lr))
    strip, error = len(lr) if rest else strip, 0.0
    for top in range(0, len(lr), strip):
        bottom = min(top + strip, len(lr))
        first, last = max(0, top - REACH), min(len(lr), bottom + REACH)
        piece = np.atleast_3d(sr[first * scale : last * scale if last < len(lr) else None])
        for colour, given in zip(np.moveaxis(piece, -1, 0), np.moveaxis(np.atleast_3d(lr), -1, 0), strict=True):
            plane = colour if levels == 255 else colour.astype(np.float32)
            small = resize_channels(plane, (last - first, lr.shape[1]), Image.Resampling.BICUBIC).astype(np.float64)
            small = np.rint(small).clip(0, levels) / levels if levels else small
            difference = small[top - first : bottom - first] - given[top:bottom]
            if levels:  # inputs of that depth went through float32, so that what is left below the last bit is nothing
                difference[np.abs(difference) < 0.1 / levels] = 0
            error += float((difference**2).sum())
    mean = error / lr.size
    return -10 * math.log10(mean) if mean > 1e-12 else math.inf
