"""Doubling the size by repetition and convolving with 3x3, in less than half of the multiplications."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLD_FROM = 16 * 16  # pixels of the input; below, adding the kernels up costs more than it saves


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv3x3(repeat2x2(x)), (B, C, H, W) -> (B, C', 2H, 2W). weight: (C', C, 3, 3).

    Of the 3x3 pixels below a kernel many are copies of one another: each of the four outputs that a pixel becomes is a
    2x2 convolution of the small image, with kernels that are sums of the taps. 4 multiplications instead of 9, and the
    enlarged image is never made; the same result to rounding.
    """
    if x.shape[-2] * x.shape[-1] < FOLD_FROM:
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    batch, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    rows = _folded(weight, 2)
    phases = [
        F.conv2d(padded[:, :, a : a + height + 1, b : b + width + 1], kernel, bias)  # (B, C', H, W)
        for a, columns in enumerate(rows)
        for b, kernel in enumerate(_folded(columns, 3))
    ]
    if torch.is_grad_enabled():
        out = torch.stack(phases, dim=2)  # (B, C', 4, H, W)
        return F.pixel_shuffle(out.flatten(1, 2), 2)
    out = x.new_empty(batch, weight.shape[0], 2 * height, 2 * width)
    for phase, part in enumerate(phases):
        out[:, :, phase // 2 :: 2, phase % 2 :: 2] = part
    return out


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
