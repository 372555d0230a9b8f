"""Attention inside windows that shift from block to block: the layers of `SwinUNet` with a wide view.

After Liu et al., "Swin Transformer" (ICCV 2021), with group norms, as in Yue, Wang, Loy, "ResShift" (NeurIPS 2023).

Symbols: B batch; C channels; H, W height and width of the state; w side of a window; n = w * w tokens in it; N windows
in an image; d channels of a head.
"""

from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinashift.models.banded import affine, bands, use_reference_ops

AttentionMask = Literal["swin", "official"]

GROUPS = 32  # of every group norm
AT_ONCE = 2**12  # tokens of a band on a CPU: the intermediate values of the MLP are several times as large
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
    height: int, width: int, window: int, shift: int, kind: AttentionMask, device: torch.device | None = None
) -> Tensor:
    """Which tokens of a window must not attend to each other after the image was rolled by -shift: (N, n, n) bool.

    "swin" separates tokens that the roll brought together from opposite borders. "official" is the mask that the
    published ResShift checkpoints were trained with: it separates the columns left and right of w - shift in the last
    row of windows, and nothing elsewhere (https://github.com/zsyOAOA/ResShift/issues/81).
    """
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
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
        """The biases of each kind of window, masks included: (1, heads, n, n), or (4, heads, n, n) with a shift.

        The four kinds: inside the image, in its last column, in its last row, in both.
        """
        bias = self.position_bias()[None]  # (1, heads, n, n)
        if shift:  # an image of 2x2 windows has one of each kind
            masked = shifted_window_mask(2 * self.window, 2 * self.window, self.window, shift, mask, bias.device)
            bias = bias - 100.0 * masked[:, None].to(bias)  # (4, heads, n, n)
        return bias

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: (B*N, n, C) -> the same. bias: (1 or B*N, heads, n, n)."""
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).view(windows, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B*N, heads, n, d)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # (B*N, heads, n, d)
        return self.proj(x.transpose(1, 2).reshape(windows, tokens, channels))


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on (B, C, H, W); H and W are multiples of the window.

    For training and `torch.compile` it works on the whole image; otherwise on a few rows of windows at a time.
    """

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
        height, width = x.shape[-2:]
        biases = self.attn.biases(self.shift, self.attention_mask)
        if use_reference_ops():
            rolled = self.norm1(x).roll(-self.shift, dims=2)  # (B, C, H, W)
            x = x + self._attend(rolled, 0, height, biases).roll(self.shift, dims=2)
            return x + self.mlp(self.norm2(x))
        x, tokens = x if overwrite else x.clone(), AT_ONCE if x.device.type == "cpu" else AT_ONCE_ON_GPU
        gain, offset = affine(x, self.norm1)
        for top, bottom in bands(height, width, tokens, self.window):
            rows = (torch.arange(top, bottom, device=x.device) + self.shift) % height  # of the image before the roll
            band = torch.addcmul(offset, x.index_select(2, rows), gain)  # (B, C, rows, W)
            x.index_add_(2, rows, self._attend(band, top, height, biases).to(x.dtype))
        gain, offset = affine(x, self.norm2)
        for top, bottom in bands(height, width, tokens, self.window):
            x[:, :, top:bottom] += self.mlp(torch.addcmul(offset, x[:, :, top:bottom], gain))
        return x

    def _attend(self, band: Tensor, top: int, height: int, biases: Tensor) -> Tensor:
        """Attention on rows of windows of the rolled image of that height, from row `top`: (B, C, rows, W) -> same."""
        batch, _, rows, width = band.shape
        bias = self._bias_of(top, top + rows, height, width, biases)
        h = band.roll(-self.shift, dims=3).permute(0, 2, 3, 1)  # (B, rows, W, C)
        h = to_windows(h, self.window)  # (B*N', n, C), N' windows in the band
        h = self.attn(h, bias if len(bias) == 1 else bias.repeat(batch, 1, 1, 1))
        h = from_windows(h, self.window, rows, width).permute(0, 3, 1, 2)  # (B, C, rows, W)
        return h.roll(self.shift, dims=3)

    def _bias_of(self, top: int, bottom: int, height: int, width: int, biases: Tensor) -> Tensor:
        """The bias of each window from row `top` to `bottom`: (1, heads, n, n) if all are the same, else (N', ...)."""
        if not self.shift or (self.attention_mask == "official" and bottom < height):
            return biases[:1]
        rows = torch.arange(top // self.window, bottom // self.window, device=biases.device)[:, None]
        columns = torch.arange(width // self.window, device=biases.device)[None]
        low, right = rows == height // self.window - 1, columns == width // self.window - 1
        return biases[(2 * low + 1 * right).flatten()]  # (N', heads, n, n)


class SwinLayer(nn.Module):
    """Swin blocks between two 1x1 convolutions, (B, C, H, W) -> the same. Its output replaces the input: no residual.

    Args:
        channels: C, outside. swin_channels: inside.
        feature_size: side of the features for the network's image_size. If it is at most `window`, it becomes the
            window and nothing shifts, for larger inputs too; otherwise every second block shifts by half a window.
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
