"""Attention inside windows that shift from block to block, the layers of `SwinUNet` that look beyond a few pixels.

After Liu et al., "Swin Transformer" (ICCV 2021), with group norms, as in Yue, Wang, Loy, "ResShift" (NeurIPS 2023).
Where gradients are asked for, or the graph is being compiled, a block works on the whole picture with the plain
operations; elsewhere on a few rows of windows at a time and in the memory of its input, which changes no value.

Symbols: B batch; C channels; H, W height and width of the state; w side of a window; n = w * w tokens in it; N windows
in an image; d channels of a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinashift.models.banded import affine, plain

AttentionMask = Literal["swin", "official"]

GROUPS = 32  # of every group norm
AT_ONCE = 2**12  # tokens that a processor takes at once without gradients: what is between them is large
AT_ONCE_ON_GPU = 2**16


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B*N, n, C): windows row by row, and the tokens in each row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window**2, channels)


def from_windows(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`: (B*N, n, C) -> (B, H, W, C)."""
    x = x.view(-1, height // window, width // window, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, x.shape[-1])


def shifted_window_mask(
    height: int,
    width: int,
    window: int,
    shift: int,
    kind: AttentionMask,
    device: torch.device | str | None = None,
) -> Tensor:
    """Which tokens of a window must not attend to each other after the image was rolled by -shift: (N, n, n) bool.

    "swin" parts what the roll brought together from opposite borders. "official" is what the published ResShift
    checkpoints were trained with: in the last row of windows the columns left and right of w - shift are parted,
    everywhere else nothing is (https://github.com/zsyOAOA/ResShift/issues/81).
    """
    y = torch.arange(height, device=device)[:, None]
    x = torch.arange(width, device=device)[None, :]
    if kind == "swin":
        region = 2 * (y >= height - shift) + (x >= width - shift)  # (H, W)
    else:
        region = (y >= height - window) & (x % window >= window - shift)  # (H, W)
    region = to_windows(region.int()[None, :, :, None], window)  # (N, n, 1); the inductor cannot compare bools
    return region != region.mT  # (N, n, n)


class WindowAttention(nn.Module):
    """Multi-head attention inside each window, with a learned bias for every relative position."""

    def __init__(self, channels: int, window: int, heads: int):
        super().__init__()
        self.window, self.heads = window, heads
        self.steady, self._kept = False, dict[tuple[int, AttentionMask], Tensor]()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def position_bias(self) -> Tensor:
        """(heads, n, n): for a query at (y, x) and a key at (v, u) the entry (y - v + w - 1, x - u + w - 1)."""
        w = self.window
        table = self.relative_position_bias_table.T.reshape(self.heads, 2 * w - 1, 2 * w - 1)
        by_corner = table.unfold(1, w, 1).unfold(2, w, 1)  # (heads, w, w, w, w): entry (y + i, x + j) at [y, x, i, j]
        return by_corner.flip(3, 4).reshape(self.heads, w**2, w**2)  # i = w - 1 - v, j = w - 1 - u

    def biases(self, shift: int, mask: AttentionMask) -> Tensor:
        """What is added to the products of queries and keys, for each kind of window: (1 or 4, heads, n, n).

        Without a shift all windows are of one kind. With it there are those inside the picture, of its last column, of
        its last row, and of both. While the weights are `steady` this is computed once, and not at every call.
        """
        if (bias := self._kept.get((shift, mask))) is not None:
            return bias
        bias = self.position_bias()[None]  # (1, heads, n, n)
        if shift:  # a picture of 2x2 windows has one of each kind
            masked = shifted_window_mask(2 * self.window, 2 * self.window, self.window, shift, mask, bias.device)
            bias = bias - 100.0 * masked[:, None].to(bias)  # (4, heads, n, n)
        if self.steady:
            self._kept[shift, mask] = bias
        return bias

    def keep(self, steady: bool) -> None:
        """Whether the weights stay as they are from now on; what was kept is forgotten."""
        self.steady, self._kept = steady, {}

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:
        """x: (B*N, n, C) -> the same. masked: (N, n, n) bool, true where a token must not look, or None."""
        bias = self.position_bias()[None]  # (1, heads, n, n)
        if masked is not None:
            bias = bias - 100.0 * masked[:, None].to(bias)  # (N, heads, n, n)
            bias = bias.repeat(len(x) // len(masked), 1, 1, 1)  # (B*N, heads, n, n)
        return self.attend(x, bias)

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: (B*N, n, C) -> the same. bias: (1 or B*N, heads, n, n)."""
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).view(windows, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B*N, heads, n, d)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # (B*N, heads, n, d)
        return self.proj(x.transpose(1, 2).reshape(windows, tokens, channels))


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on (B, C, H, W); H and W are multiples of the window."""

    def __init__(
        self, channels: int, heads: int, window: int, shift: int, mlp_ratio: float, attention_mask: AttentionMask
    ):
        super().__init__()
        self.window, self.shift, self.attention_mask = window, shift, attention_mask
        hidden = int(mlp_ratio * channels)
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.attn = WindowAttention(channels, window, heads)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Conv2d(channels, hidden, 1), act=nn.GELU(), fc2=nn.Conv2d(hidden, channels, 1))
        )

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """`overwrite`: where no gradient is asked for, the result may lie in the memory of x."""
        if not plain():
            return self._mlp_in_bands(self._attention_in_bands(x if overwrite else x.clone()))
        height, width = x.shape[-2:]
        h = self.norm1(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        masked = None
        if self.shift:
            h = h.roll((-self.shift, -self.shift), dims=(1, 2))
            masked = shifted_window_mask(height, width, self.window, self.shift, self.attention_mask, x.device)
        h = self.attn(to_windows(h, self.window), masked)  # (B*N, n, C)
        h = from_windows(h, self.window, height, width)  # (B, H, W, C)
        if self.shift:
            h = h.roll((self.shift, self.shift), dims=(1, 2))
        x = x + h.permute(0, 3, 1, 2)  # (B, C, H, W)
        return x + self.mlp(self.norm2(x))

    def _attention_in_bands(self, x: Tensor) -> Tensor:
        """x + attention(norm(x)), in the memory of x."""
        batch, _, height, width = x.shape
        gain, offset = affine(x, self.norm1)
        biases = self.attn.biases(self.shift, self.attention_mask)
        for top, bottom in self._bands(x):
            rows = (torch.arange(top, bottom, device=x.device) + self.shift) % height  # of the picture before the roll
            h = torch.addcmul(offset, x.index_select(2, rows), gain).roll(-self.shift, dims=3)  # (B, C, rows, W)
            bias = self._bias_of(top // self.window, bottom // self.window, height, width, biases)
            h = to_windows(h.permute(0, 2, 3, 1), self.window)  # (B*N', n, C), N' windows in the band
            h = self.attn.attend(h, bias if len(bias) == 1 else bias.repeat(batch, 1, 1, 1))
            h = from_windows(h, self.window, bottom - top, width).permute(0, 3, 1, 2)  # (B, C, rows, W)
            x.index_add_(2, rows, h.roll(self.shift, dims=3).to(x.dtype))
        return x

    def _bias_of(self, top: int, bottom: int, height: int, width: int, biases: Tensor) -> Tensor:
        """For rows of windows from `top` to `bottom`: (1, heads, n, n) if they are all the same, else (N', ...)."""
        last_row, last_column = height // self.window - 1, width // self.window - 1
        if not self.shift or (self.attention_mask == "official" and bottom <= last_row):
            return biases[:1]
        low = torch.arange(top, bottom, device=biases.device)[:, None] == last_row
        right = torch.arange(last_column + 1, device=biases.device)[None] == last_column
        return biases[(2 * low + 1 * right).flatten()]  # (N', heads, n, n)

    def _mlp_in_bands(self, x: Tensor) -> Tensor:
        """x + mlp(norm(x)), in the memory of x."""
        gain, offset = affine(x, self.norm2)
        for top, bottom in self._bands(x):
            x[:, :, top:bottom] += self.mlp(torch.addcmul(offset, x[:, :, top:bottom], gain))
        return x

    def _bands(self, x: Tensor) -> Iterator[tuple[int, int]]:
        """(first, beyond the last) of the rows that are taken at once: whole windows."""
        height, width = x.shape[-2:]
        tokens = AT_ONCE if x.device.type == "cpu" else AT_ONCE_ON_GPU
        rows = self.window * max(1, tokens // (self.window * width))
        for top in range(0, height, rows):
            yield top, min(height, top + rows)


class SwinLayer(nn.Module):
    """Swin blocks between two 1x1 convolutions, (B, C, H, W) -> the same. Its output replaces the input: no residual.

    Args:
        channels: C, outside. swin_channels: inside.
        feature_size: side of the features for the network's image_size. Where it is at most `window`, it is the window
            and nothing shifts, also for larger inputs; elsewhere every second block shifts by half a window.
    """

    def __init__(
        self,
        channels: int,
        swin_channels: int,
        feature_size: int,
        window: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        patch_norm: bool = False,
        attention_mask: AttentionMask = "swin",
    ):
        super().__init__()
        self.feature_size = feature_size
        window, shift = (window, window // 2) if feature_size > window else (feature_size, 0)

        def projection(channels_in: int, channels_out: int) -> nn.Sequential:
            layers = OrderedDict[str, nn.Module](proj=nn.Conv2d(channels_in, channels_out, 1))
            if patch_norm:
                layers["norm"] = nn.GroupNorm(GROUPS, channels_out)
            return nn.Sequential(layers)

        self.patch_embed = projection(channels, swin_channels)
        self.blocks = nn.Sequential(
            *(SwinBlock(swin_channels, heads, window, shift * (i % 2), mlp_ratio, attention_mask) for i in range(depth))
        )
        self.patch_unembed = projection(swin_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # (B, swin_channels, H, W)
        for block in self.blocks:
            x = block(x, overwrite=True)
        return self.patch_unembed(x)
