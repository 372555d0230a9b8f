"""Windows, their masks and the attention inside them: exact, whole or in bands."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from retinashift.models import window_attention
from retinashift.models.window_attention import (
    SwinBlock,
    WindowAttention,
    from_windows,
    shifted_window_mask,
    to_windows,
)

# windows


def test_windows_are_whole_squares_row_by_row_and_go_back_exactly():
    image = torch.arange(2 * 8 * 12, dtype=torch.float32).view(2, 8, 12, 1)
    windows = to_windows(image, 4)
    assert windows.shape == (12, 16, 1)
    assert torch.equal(windows[4].view(4, 4), image[0, 4:8, 4:8, 0])
    assert torch.equal(from_windows(windows, 4, 8, 12), image)


def test_the_swin_mask_lets_exactly_those_tokens_meet_that_are_close_before_the_roll():
    height, width, window, shift = 12, 8, 4, 2
    masked = shifted_window_mask(height, width, window, shift, "swin")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y, x], dim=-1).roll((-shift, -shift), (0, 1))[None]  # where each token was
    places = to_windows(places, window)  # (N, n, 2)
    distance = (places[:, :, None] - places[:, None, :]).abs().amax(-1)  # (N, n, n)
    assert torch.equal(masked, distance >= window)


def test_the_official_mask_parts_columns_in_the_last_row_of_windows_only():
    masked = shifted_window_mask(12, 8, 4, 2, "official")  # 3 x 2 windows
    assert not masked[:4].any()
    column = torch.arange(16) % 4
    for window in masked[4:]:
        assert torch.equal(window, (column[:, None] < 2) != (column[None, :] < 2))


@pytest.mark.shared
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (16, 24), (24, 16)])
def test_the_official_mask_is_the_published_networks(parity, height, width):
    mask = shifted_window_mask(height, width, 8, 4, "official")
    parity.check("blocks", f"swin.mask_{height}x{width}", mask, 0)


# attention


def naive_attention(attention: WindowAttention, x: Tensor, masked: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias + mask) v, token by token and head by head."""
    w, heads = attention.window, attention.heads
    windows, tokens, channels = x.shape
    d = channels // heads
    q, k, v = (part.view(windows, tokens, heads, d) for part in attention.qkv(x).chunk(3, dim=-1))
    out = torch.zeros(windows, tokens, heads, d)
    for window, head, i in itertools.product(range(windows), range(heads), range(tokens)):
        scores = k[window, :, head] @ q[window, i, head] / d**0.5
        for j in range(tokens):
            entry = (i // w - j // w + w - 1) * (2 * w - 1) + (i % w - j % w + w - 1)
            scores[j] += attention.relative_position_bias_table[entry, head]
            if masked is not None and masked[window % len(masked), i, j]:
                scores[j] -= 100
        out[window, i, head] = scores.softmax(0) @ v[window, :, head]
    return attention.proj(out.view(windows, tokens, channels))


@pytest.mark.parametrize("kind", [None, "swin", "official"])
@torch.no_grad()
def test_attention_equals_the_formula(kind):
    generator = torch.Generator().manual_seed(2)
    attention = WindowAttention(channels=8, window=4, heads=2)
    for parameter in attention.parameters():
        parameter.normal_(generator=generator)
    masked = None if kind is None else shifted_window_mask(8, 8, 4, 2, kind)
    x = torch.randn(2 * 4, 16, 8, generator=generator)  # two images of four windows, one of each kind
    bias = attention.biases(0 if kind is None else 2, kind or "swin")
    found = attention(x, bias if kind is None else bias.repeat(2, 1, 1, 1))
    torch.testing.assert_close(found, naive_attention(attention, x, masked), atol=1e-5, rtol=1e-5)


@pytest.mark.shared
def test_the_position_bias_reads_the_published_entries(parity):
    attention = WindowAttention(channels=8, window=8, heads=1)
    attention.relative_position_bias_table.data = torch.arange(225.0)[:, None]
    parity.check("blocks", "swin.relative_position_index", attention.position_bias()[0].long(), 0)


# bands


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("kind", ["swin", "official"])
@pytest.mark.parametrize("shift", [0, 2])
def test_a_block_in_bands_is_the_block_as_a_whole(monkeypatch, shift, kind, rows):
    generator = torch.Generator().manual_seed(3)
    block = SwinBlock(32, heads=2, window=4, shift=shift, mlp_ratio=2, attention_mask=kind)
    for parameter in block.parameters():
        parameter.data.normal_(generator=generator).mul_(0.3)
    for height, width in ((20, 12), (4, 4), (4, 12)):
        x = torch.randn(2, 32, height, width, generator=generator)
        whole = block(x).detach()
        monkeypatch.setattr(window_attention, "AT_ONCE", rows * 4 * width)
        with torch.no_grad():
            torch.testing.assert_close(block(x), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["swin", "official"])
def test_the_four_kinds_of_windows_are_all_there_are(kind):
    attention = WindowAttention(channels=8, window=4, heads=2)
    biases = attention.biases(2, kind)
    masked = shifted_window_mask(12, 16, 4, 2, kind)
    for number, window in enumerate(masked):
        row, column = divmod(number, 4)
        bias = attention.position_bias() - 100.0 * window
        assert torch.equal(biases[2 * (row == 2) + (column == 3)], bias)
