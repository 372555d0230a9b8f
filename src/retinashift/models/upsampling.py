"""Doubling the size by repetition and convolving with 3x3, in less than half of the multiplications."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BAND = 2**20  # values of one band of rows, by which large inputs are worked on
FOLD_FROM = 16 * 16  # pixels of the input; below, adding the kernels up costs more than it saves


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(repeat2x2(x)), (B, C, H, W) -> (B, C', 2H, 2W). weight: (C', C, 3, 3).

    Of the 3x3 pixels below a kernel many are copies of one another: each of the four outputs that a pixel becomes is a
    2x2 convolution of the small image, with kernels that are sums of the taps. 4 multiplications instead of 9, and the
    enlarged image is never made; the same result to rounding.
    """
    if x.shape[-2] * x.shape[-1] < FOLD_FROM:
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    kernels = [kernel for columns in _folded(weight, 2) for kernel in _folded(columns, 3)]
    if torch.is_grad_enabled():
        parts = torch.stack(list(_phases(F.pad(x, (1, 1, 1, 1)), kernels, bias)), dim=2)  # (B, C', 4, H, W)
        return F.pixel_shuffle(parts.flatten(1, 2), 2)
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, weight.shape[0], 2 * height, 2 * width)
    rows = max(1, BAND // (channels * width))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
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
    """Three taps of a repeated image as two of the image itself: for its first and for its second copy."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class Upsample(nn.Module):
    """Twice the size by repetition, then a convolution if `learned`: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int, learned: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, nn.Conv2d):
            return upsample_conv(x, self.conv.weight, self.conv.bias)
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
