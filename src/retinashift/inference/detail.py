"""How strong the detail of a result may be, from the finest detail of its input.

On photographs softer than those of training the predicted detail is too strong, and so is the detail of a sample.
The energy of the input's finest octave tells how soft a photograph is. A checkpoint keeps curves over it, fitted on
validation photographs at several sizes, and each photograph gets one factor from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.fundus import LUMA
from retinashift.inference.fidelity import REACH
from retinashift.models.codec import Upsampling, upsample_bicubic

Curve = Sequence[Sequence[float]]
"""[energy, factor] pairs, the energies rising; straight between them and level beyond."""
SIXTH = (1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0)
"""Sixth difference; with its absolute values adding up to 1 it passes a picture's fastest ripple unchanged."""
BRIGHT = 0.6
"""The field is where the luma exceeds this share of the frame's mean."""
EDGE = 4
"""Input pixels that are left out along the border of the field, where the aperture is sharp."""
STRIP = 256
"""Rows at a time."""


def finest_energy(lr: Tensor) -> float:
    """Logarithm of the mean square of the finest ripples of the luma in the field, in levels of 255.

    Ripples are the sixth differences down of those across. The same for a picture that is turned or mirrored.

    Args:
        lr: (1, 3, h, w) in [-1, 1].

    Returns:
        inf where no pixel lies inside the field: nothing is known to be soft.
    """
    weights = torch.tensor(LUMA, device=lr.device)[:, None, None]
    luma = ((lr[0].float() * weights).sum(0, keepdim=True)[None] + 1) * 127.5  # (1, 1, h, w)
    dark = BRIGHT * luma.mean()
    kernel = torch.tensor(SIXTH, device=lr.device) / sum(map(abs, SIXTH))
    halo, height = max(EDGE, len(SIXTH) // 2), luma.shape[-2]
    total = count = 0.0
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        first, last = max(0, top - halo), min(height, bottom + halo)
        rows, kept = luma[..., first:last, :], slice(top - first, bottom - first)
        padded = F.pad(rows, (3, 3, 3, 3), mode="replicate")
        ripples = F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])  # (1, 1, n, w)
        border = F.max_pool2d((rows <= dark).float(), 2 * EDGE + 1, stride=1, padding=EDGE)
        inside = (border == 0)[..., kept, :]
        total += float((ripples[..., kept, :][inside].double() ** 2).sum())
        count += float(inside.sum())
    return math.log(max(total / count, 1e-9)) if count else math.inf


def factor_at(curve: Curve | None, energy: float) -> float:
    """The curve at this energy; 1 without a curve.

    >>> factor_at([[-4, 0.8], [-2, 1.0]], -3), factor_at(None, -3)
    (0.9, 1.0)
    """
    if curve is None:
        return 1.0
    points = np.asarray(curve, float)
    return float(np.interp(energy, points[:, 0], points[:, 1]))


def check_curves(curves: Any) -> None:
    """ValueError unless these are `Curve`s by the names "mean" and "sample", with factors above 0, or None."""
    for name, curve in (curves or {}).items():
        points = np.asarray(curve, dtype=object)
        if name in ("mean", "sample") and points.ndim == 2 and points.shape[1] == 2:
            numbers = [float(value) if isinstance(value, (int, float)) else math.nan for value in points.flat]
            energies, factors = np.reshape(numbers, (-1, 2)).T
            if np.isfinite(energies).all() and (np.diff(energies) > 0).all() and ((factors > 0) & (factors < 10)).all():
                continue
        raise ValueError(
            f"detail_curves has {name}: {curve!r:.60}; mean and sample are allowed, as pairs [energy, factor] with "
            "rising energies and factors between 0 and 10"
        )


def scale_detail(
    bands: Iterator[Tensor], lr: Tensor, scale: int, upsampling: Upsampling, factor: float
) -> Iterator[Tensor]:
    """A sample whose difference from the interpolated input is multiplied by `factor`.

    Args:
        bands: (1, 3, n*scale, w*scale) each, top to bottom.
        lr: (1, 3, h, w).
    """
    top = 0
    for band in bands:
        bottom = top + band.shape[-2] // scale
        first, last = max(0, top - REACH), min(lr.shape[-2], bottom + REACH)
        smooth = upsample_bicubic(lr[..., first:last, :], scale, upsampling)[..., (top - first) * scale :, :]
        yield torch.lerp(smooth[..., : band.shape[-2], :], band, factor)
        top = bottom
