"""Faithfulness to the input: a result that is reduced again must give the input back.

A network's estimate can drift by a grey level here or there, in colour or in brightness. Iterative back-projection
(Irani, Peleg, 1991) puts that right: what the reduced result lacks is enlarged and added. It changes what the input
has measured, the coarse structure, and leaves the estimated detail as it is.
"""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.degradation import bicubic_pillow
from retinashift.models.codec import upsample_bicubic

REACH = 4
"""How far, in low-resolution pixels, one back-projection looks: two for the reduction, two for the enlargement."""


def back_project(sr: Tensor, lr: Tensor, scale: int, iterations: int) -> Tensor:
    """Bring `sr` closer to those pictures whose bicubic reduction is `lr`.

    Args:
        sr: (B, C, h*scale, w*scale) in [-1, 1].
        lr: (B, C, h, w) in [-1, 1].
        scale: of the picture; the reduction is `bicubic-pillow`, in floating point.
        iterations: how often; 0 returns `sr`. Two bring the PSNR of the reduced result above 70 dB.

    Returns:
        As `sr`, in [-1, 1].
    """
    for _ in range(iterations):
        reduced = F.interpolate(sr, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
        sr = (sr + upsample_bicubic(lr - reduced, scale)).clamp(-1, 1)
    return sr


def consistency(sr: np.ndarray, lr: np.ndarray, scale: int) -> float:
    """PSNR in dB between a result that is reduced again by `bicubic-pillow` and its input; inf if they are equal.

    Args:
        sr: (scale H, scale W) or (scale H, scale W, 3).
        lr: (H, W) or (H, W, 3), of the dtype of `sr`: uint8, uint16, or float in [0, 1], which is measured in 16 bit.
    """
    if sr.dtype.kind == "f":
        sr, lr = ((pixels * 65535).round().astype(np.uint16) for pixels in (sr, lr))
    peak = float(np.iinfo(sr.dtype).max)
    error = float(np.mean((bicubic_pillow(sr, scale).astype(np.float64) - lr) ** 2))
    return 10 * math.log10(peak**2 / error) if error else math.inf
