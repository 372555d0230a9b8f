"""How strong the detail of a result may be, from the finest detail of its input.

On photographs softer than those of training the predicted detail is too strong, and so is the detail of a sample.
The energy of the input's finest octave tells how soft a photograph is. A checkpoint keeps curves over it, fitted on
validation photographs at several sizes, and each photograph gets one factor from them. It holds inside the field: the
edge of the aperture is sharp, however soft the photograph is.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.fundus import LUMA
from retinashift.models.codec import Upsampling, upsample_rows

Curve = Sequence[Sequence[float]]
"""[energy, factor] pairs, the energies rising; straight between them and level beyond."""
SIXTH = (1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0)
"""Sixth difference; with its absolute values adding up to 1 it passes a picture's fastest ripple unchanged."""
BRIGHT = 0.6  # the field is where the luma exceeds this share of the frame's mean
EDGE = 4  # input pixels that are left out along the border of the field, where the aperture is sharp


def inner_field(lr: Tensor) -> Tensor:
    """Where the field is, without a border of `EDGE` pixels: (1, 3, h, w) in [-1, 1] -> (1, 1, h, w), 1 or 0."""
    luma = _luma(lr)
    dark = (luma <= BRIGHT * luma.mean()).float()
    return 1 - F.max_pool2d(dark, 2 * EDGE + 1, stride=1, padding=EDGE)


def finest_energy(lr: Tensor, field: Tensor) -> float:
    """Logarithm of the mean square of the finest ripples of the luma in the field, in levels of 255.

    Ripples are the sixth differences down of those across; turned or mirrored, a picture has the same. It is inf where
    no pixel lies inside the field: nothing is known to be soft.

    Args:
        lr: (1, 3, h, w) in [-1, 1]. field: `inner_field` of it.
    """
    kernel = torch.tensor(SIXTH, device=lr.device) / sum(map(abs, SIXTH))
    padded = F.pad(_luma(lr), (len(SIXTH) // 2,) * 4, mode="replicate")
    ripples = F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])  # (1, 1, h, w)
    total, count = float(((ripples * field).double() ** 2).sum()), float(field.double().sum())
    return math.log(max(total / count, 1e-9)) if count else math.inf


def _luma(lr: Tensor) -> Tensor:
    """(1, 3, n, w) in [-1, 1] -> (1, 1, n, w), 0 to 255."""
    weights = torch.tensor(LUMA, device=lr.device)[:, None, None]
    return ((lr.float() * weights).sum(1, keepdim=True) + 1) * 127.5


def factor_at(curve: Curve | None, energy: float) -> float:
    """The curve at this energy; 1 without a curve.

    >>> factor_at([[-4, 0.8], [-2, 1.0]], -3), factor_at(None, -3)
    (0.9, 1.0)
    """
    if not curve:
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
    bands: Iterator[Tensor], lr: Tensor, scale: int, upsampling: Upsampling, factor: float, field: Tensor
) -> Iterator[Tensor]:
    """A sample whose difference from the interpolated input is multiplied by `factor` inside the field.

    Args:
        bands: (1, 3, n*scale, w*scale) each, top to bottom. lr: (1, 3, h, w). field: `inner_field` of it.
    """
    top = 0
    for band in bands:
        bottom = top + band.shape[-2] // scale
        smooth = upsample_rows(lr, top, bottom, scale, upsampling)
        factors = 1 + (factor - 1) * field[..., top:bottom, :]  # (1, 1, n, w)
        yield torch.lerp(smooth, band, F.interpolate(factors, scale_factor=scale))
        top = bottom
