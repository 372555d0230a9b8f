"""Convolutions on large images in bands of rows: after a group norm and SiLU, and after doubling the size.

The norm's statistics are those of the whole image, so bands do not change the result. Neither the normalised nor the
doubled image exists as a whole, and a band stays in the cache. Training and `torch.compile` use the plain operations.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BAND = 2**20  # values of one band: 4 MiB
FOLD_FROM = 16 * 16  # pixels of the input; below, adding up the kernels costs more than it saves
Modulation = tuple[Tensor, ...] | None  # scale and shift after a norm, (B, C, 1, 1) each


def use_reference_ops() -> bool:
    """Whether to use the plain operations: where gradients are asked for, or the graph is being compiled."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def bands(height: int, row: int, most: int = 0, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """(first, beyond the last) of the bands of rows of `row` values each: at most `most`, in multiples of rows."""
    rows = multiple * max(1, (most or BAND) // (row * multiple))
    for top in range(0, height, rows):
        yield top, min(height, top + rows)


def conv_of_norm(
    x: Tensor, norm: Any, conv: Any, modulation: Modulation = None, dropout: Any = None, added_to: Tensor | None = None
) -> Tensor:
    """conv(dropout(silu(norm(x) * (1 + scale) + shift))), (B, C, H, W) -> (B, C', H, W).

    The convolution is 3x3 with padding 1. With `added_to`, (B, C', H, W), the sum of both, which may lie in its memory.
    """
    if use_reference_ops() or (dropout is not None and dropout.training and dropout.p):
        h = norm(x)
        if modulation is not None:
            h = h * (1 + modulation[0]) + modulation[1]
        h = F.silu(h)
        h = conv(h if dropout is None else dropout(h))
        return h if added_to is None else added_to + h
    gain, offset = affine(x, norm, modulation)
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


def affine(x: Tensor, norm: Any, modulation: Modulation = None) -> tuple[Tensor, Tensor]:
    """gain and offset, (B, C, 1, 1) each: the norm and what follows it are x * gain + offset."""
    batch, channels = x.shape[:2]
    variance, mean = _moments(x.float().reshape(batch, norm.num_groups, -1))  # (B, groups)
    deviation = (variance + norm.eps).rsqrt()
    gain, offset = (v.repeat_interleave(channels // norm.num_groups, dim=1) for v in (deviation, -mean * deviation))
    gain, offset = norm.weight * gain, norm.weight * offset + norm.bias  # (B, C)
    gain, offset = (v.to(x.dtype)[:, :, None, None] for v in (gain, offset))
    if modulation is not None:
        scale, shift = modulation
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


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(repeat2x2(x)), (B, C, H, W) -> (B, C', 2H, 2W). weight: (C', C, 3, 3).

    Under a kernel many pixels are copies of one another: each of the four outputs of a pixel is a 2x2 convolution of
    the small image, with sums of the taps. This takes 4 multiplications instead of 9; the same result to rounding.
    """
    if x.shape[-2] * x.shape[-1] < FOLD_FROM:
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    kernels = [kernel for columns in _folded(weight, 2) for kernel in _folded(columns, 3)]
    if use_reference_ops():
        parts = torch.stack(list(_phases(F.pad(x, (1, 1, 1, 1)), kernels, bias)), dim=2)  # (B, C', 4, H, W)
        return F.pixel_shuffle(parts.flatten(1, 2), 2)
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, weight.shape[0], 2 * height, 2 * width)
    for top, bottom in bands(height, channels * width):
        band = x[:, :, max(0, top - 1) : min(height, bottom + 1)]
        padded = F.pad(band, (1, 1, top == 0, bottom == height))  # zeros beyond the picture, neighbours inside
        for number, phase in enumerate(_phases(padded, kernels, bias)):
            out[:, :, 2 * top + number // 2 : 2 * bottom : 2, number % 2 :: 2] = phase
    return out


def _phases(padded: Tensor, kernels: list[Tensor], bias: Tensor | None) -> Iterator[Tensor]:
    """The four pixels that each pixel becomes, row by row; padded: (B, C, H + 2, W + 2), each phase (B, C', H, W)."""
    for number, kernel in enumerate(kernels):
        a, b = divmod(number, 2)
        yield F.conv2d(padded[:, :, a : padded.shape[2] - 1 + a, b : padded.shape[3] - 1 + b], kernel, bias)


def _folded(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps on a repeated image as two taps on the image itself: for its first and its second copy."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class Upsample(nn.Module):
    """Twice the size by repetition, then a convolution: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return upsample_conv(x, self.conv.weight, self.conv.bias)
