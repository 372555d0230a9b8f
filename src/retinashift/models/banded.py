"""Group norm, SiLU and a 3x3 convolution as one, in bands of rows: large pictures in little memory.

The statistics are those of the whole, so bands change nothing; but neither the normalised input nor the copies that a
convolution makes for itself exist as a whole, and a band stays in the processor's cache. Where gradients are asked for,
or the graph is being compiled, the plain operations are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BAND = 2**20  # values of one band: 4 MiB


def plain() -> bool:
    """Whether the plain operations are to be used."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def bands(height: int, row: int) -> Iterator[tuple[int, int]]:
    """(first, beyond the last) of the bands of rows of `row` values each."""
    rows = max(1, BAND // row)
    for top in range(0, height, rows):
        yield top, min(height, top + rows)


def conv_of_norm(
    x: Tensor,
    norm: Any,
    conv: Any,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    added_to: Tensor | None = None,
) -> Tensor:
    """conv(silu(norm(x) * (1 + scale) + shift)), (B, C, H, W) -> (B, C', H, W).

    Args:
        norm, conv: `nn.GroupNorm`; `nn.Conv2d` of 3x3 with padding 1.
        scale, shift: (B, C, 1, 1), or None.
        added_to: (B, C', H, W); the result is the sum of both, which may then lie in its memory.
    """
    if plain():
        h = norm(x)
        if scale is not None and shift is not None:
            h = h * (1 + scale) + shift
        h = conv(F.silu(h))
        return h if added_to is None else added_to + h
    gain, offset = affine(x, norm, scale, shift)
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, conv.out_channels, height, width) if added_to is None else added_to
    for top, bottom in bands(height, channels * width):
        first, last = max(0, top - 1), min(height, bottom + 1)
        band = F.silu(torch.addcmul(offset, x[:, :, first:last], gain), inplace=True)  # (B, C, rows + 2, W)
        band = F.pad(band, (0, 0, top == 0, bottom == height))  # zeros beyond the picture, neighbours inside
        band = F.conv2d(band, conv.weight, conv.bias, padding=(0, 1))  # (B, C', rows, W)
        if added_to is None:
            out[:, :, top:bottom] = band
        else:
            out[:, :, top:bottom] += band
    return out


def affine(
    x: Tensor, norm: Any, scale: Tensor | None = None, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """gain and offset, (B, C, 1, 1) each: the norm and what follows it are x * gain + offset."""
    batch, channels = x.shape[:2]
    variance, mean = _moments(x.float().reshape(batch, norm.num_groups, -1))  # (B, groups)
    deviation = (variance + norm.eps).rsqrt()
    gain, offset = (v.repeat_interleave(channels // norm.num_groups, dim=1) for v in (deviation, -mean * deviation))
    gain = norm.weight * gain  # (B, C)
    offset = norm.weight * offset + norm.bias
    gain, offset = (v.to(x.dtype)[:, :, None, None] for v in (gain, offset))
    if scale is not None and shift is not None:
        gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
    return gain, offset


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean over the last dimension, (B, groups, n) -> (B, groups) each."""
    if x.device.type != "cpu":
        return torch.var_mean(x, dim=2, correction=0)
    # On a CPU var_mean takes many times as long as these two passes, of which the second stays in the cache.
    mean = x.mean(2, keepdim=True)
    parts = x.split(max(1, BAND // 4 // (x.shape[0] * x.shape[1])), dim=2)
    lengths = torch.stack([torch.linalg.vector_norm(part - mean, dim=2) for part in parts])  # (parts, B, groups)
    return lengths.square().sum(0) / x.shape[2], mean[..., 0]
