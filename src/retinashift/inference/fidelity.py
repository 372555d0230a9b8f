"""Faithfulness to the input: a result that is reduced again must give the input back.

A network's estimate can drift by a grey level here or there, in colour or in brightness. Iterative back-projection
(Irani, Peleg, 1991) puts that right: what the reduced result lacks is enlarged and added. It changes what the input
has measured, the coarse structure, and leaves the estimated detail as it is.
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


def back_project(sr: Tensor, lr: Tensor, scale: int, iterations: int) -> Tensor:
    """Bring `sr` closer to those pictures whose bicubic reduction is `lr`.

    Args:
        sr: (B, C, h*scale, w*scale) in [-1, 1].
        lr: (B, C, h, w) in [-1, 1].
        scale: of the picture; the reduction is `bicubic-pillow`, in floating point.
        iterations: how often; 0 returns `sr`. Values outside the range count as what is shown of them.

    Returns:
        As `sr`, in [-1, 1].
    """
    for _ in range(iterations):
        sr = sr.clamp(-1, 1)  # what is cut off later would be missing from the reduced result
        reduced = F.interpolate(sr, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
        sr = (sr + upsample_bicubic(lr - reduced, scale)).clamp(-1, 1)
    return sr


def back_project_rows(bands: Iterator[Tensor], lr: Tensor, scale: int, iterations: int) -> Iterator[Tensor]:
    """`back_project` of a picture that comes in bands of rows, top to bottom; the same numbers, a few rows later.

    Args:
        bands: (1, C, n*scale, w*scale) each.
        lr, scale, iterations: as in `back_project`.
    """
    for _ in range(iterations):
        bands = _one_iteration(bands, lr, scale)
    return bands


def _one_iteration(bands: Iterator[Tensor], lr: Tensor, scale: int) -> Iterator[Tensor]:
    halo = 2 * REACH  # a correction is enlarged from corrections around it, each reduced from rows around it
    height, top, done = lr.shape[-2], 0, 0  # of input rows: all, the first one held, those given out
    held = lr.new_zeros(*lr.shape[:2], 0, lr.shape[-1] * scale)
    for rows in bands:
        held = torch.cat([held, rows], dim=-2)
        bottom = top + held.shape[-2] // scale
        ready = bottom if bottom == height else bottom - halo
        if ready > done:
            better = back_project(held, lr[..., top:bottom, :], scale, 1)
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
