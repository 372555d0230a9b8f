"""Faithfulness to the input: a result that is reduced again must give the input back.

A network's estimate can drift by a grey level here or there, in colour or in brightness. Iterative back-projection
(Irani, Peleg, 1991) puts that right: what the reduced result lacks is enlarged and added. It changes what the input
has measured, the coarse structure, and leaves the estimated detail as it is.

Whatever the weights are, a value of the result stays near what was seen: within the span of the input pixels around it,
a little widened (`value_limits`). The limits are applied inside each round of back-projection, after its correction, so
that they hold of the final result, and each round corrects what the limits took away in the round before. Where the two
contradict each other, the limits win.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.models.codec import upsample_bicubic

REACH = 2
"""How many input pixels beyond its own a reduced pixel looks: half the width of the bicubic kernel."""
SPAN, LEVELS = 0.5, 4.0
"""A value lies within `SPAN` times the span of its input neighbourhood and `LEVELS` of 255 levels beyond that span."""
ROUNDING = 0.5
"""Levels of 255 that the limits leave to the rounding of an 8-bit result."""
Limits = tuple[Tensor, Tensor]


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
    height, width = limits[0].shape[-2:]
    least, most = (limit[..., :, None, :, None] for limit in limits)  # (B, C, h, 1, w, 1)
    blocks = sr.unflatten(-1, (width, scale)).unflatten(-3, (height, scale))  # (B, C, h, scale, w, scale)
    return torch.fmin(torch.fmax(blocks, least), most).flatten(-4, -3).flatten(-2)


def back_project(sr: Tensor, lr: Tensor, scale: int, iterations: int, limits: Limits | None = None) -> Tensor:
    """Bring `sr` closer to those pictures whose bicubic reduction is `lr`.

    Args:
        sr: (B, C, h*scale, w*scale) in [-1, 1].
        lr: (B, C, h, w) in [-1, 1].
        scale: of the picture; the reduction is `bicubic-pillow`, in floating point.
        iterations: how often; 0 returns `sr`. Values outside the range count as what is shown of them.
        limits: of the values, see `value_limits`; None is -1 and 1.

    Returns:
        As `sr`, within the limits.
    """
    for _ in range(iterations):
        sr = within(sr, limits, scale)  # what is cut off later would be missing from the reduced result
        reduced = F.interpolate(sr, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
        sr = within(sr + upsample_bicubic(lr - reduced, scale), limits, scale)
    return sr


def back_project_rows(
    bands: Iterator[Tensor], lr: Tensor, scale: int, iterations: int, limits: Limits | None = None
) -> Iterator[Tensor]:
    """`back_project` of a picture that comes in bands of rows, top to bottom; the same numbers, a few rows later.

    Args:
        bands: (1, C, n*scale, w*scale) each.
        lr, scale, iterations, limits: as in `back_project`; limits also hold without any iteration.
    """
    if limits is not None:
        bands = _limited(bands, limits, scale)
    for _ in range(iterations):
        bands = _one_iteration(bands, lr, scale, limits)
    return bands


def _limited(bands: Iterator[Tensor], limits: Limits, scale: int) -> Iterator[Tensor]:
    top = 0
    for rows in bands:
        bottom = top + rows.shape[-2] // scale
        yield within(rows, (limits[0][..., top:bottom, :], limits[1][..., top:bottom, :]), scale)
        top = bottom


def _one_iteration(bands: Iterator[Tensor], lr: Tensor, scale: int, limits: Limits | None) -> Iterator[Tensor]:
    halo = 2 * REACH  # a correction is enlarged from corrections around it, each reduced from rows around it
    height, top, done = lr.shape[-2], 0, 0  # of input rows: all, the first one held, those given out
    held = lr.new_zeros(*lr.shape[:2], 0, lr.shape[-1] * scale)
    for rows in bands:
        held = torch.cat([held, rows], dim=-2)
        bottom = top + held.shape[-2] // scale
        ready = bottom if bottom == height else bottom - halo
        if ready > done:
            here = None if limits is None else (limits[0][..., top:bottom, :], limits[1][..., top:bottom, :])
            better = back_project(held, lr[..., top:bottom, :], scale, 1, here)
            yield better[..., (done - top) * scale : (ready - top) * scale, :]
            done, first = ready, max(0, ready - halo)
            held, top = held[..., (first - top) * scale :, :].clone(), first


def consistency_db(sr: np.ndarray, lr: np.ndarray, scale: int, strip: int = 64) -> float:
    """PSNR in dB between an input and its result reduced again, as a reader of the two files would measure it.

    Integer results are reduced by `bicubic_pillow` and rounded to their depth, float ones in float32. The reduction
    goes by strips, which read what its kernel reaches, so that no second picture is held.

    Args:
        sr: (H*scale, W*scale) or (H*scale, W*scale, 3), uint8, uint16 or float in [0, 1].
        lr: (H, W) or (H, W, 3), float in [0, 1].
        scale: of the picture.
        strip: rows of `lr` that are compared at a time.

    Returns:
        inf if they are equal to within a tenth of the last bit (a float input: to 1e-6).
    """
    levels = {"uint8": 255, "uint16": 65535}.get(sr.dtype.name)
    error = 0.0
    for top in range(0, len(lr), strip):
        bottom = min(top + strip, len(lr))
        first, last = max(0, top - REACH), min(len(lr), bottom + REACH)
        piece = sr[first * scale : last * scale]
        reduced = bicubic_pillow(piece, scale) / np.float32(levels) if levels else _reduced_float(piece, scale)
        difference = reduced[top - first : bottom - first].astype(np.float64) - lr[top:bottom]
        if levels:  # inputs of that depth went through float32, so that what is left below the last bit is nothing
            difference[np.abs(difference) < 0.1 / levels] = 0
        error += float((difference**2).sum())
    mean = error / lr.size
    return -10 * math.log10(mean) if mean > 1e-12 else math.inf


def _reduced_float(sr: np.ndarray, scale: int) -> np.ndarray:
    image = torch.from_numpy(np.atleast_3d(sr)).permute(2, 0, 1)[None].float()  # (1, C, H, W)
    reduced = F.interpolate(image, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
    return reduced[0].permute(1, 2, 0).numpy().reshape(-1, sr.shape[1] // scale, *sr.shape[2:])
