"""The folded convolution is the plain one, whatever the size, the band and the gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinashift.models import banded
from retinashift.models.banded import upsample_conv


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 5), (16, 16), (17, 40), (33, 19)])
@pytest.mark.parametrize("rows", [1, 3, 1000])
@torch.no_grad()
def test_it_equals_repetition_and_convolution(monkeypatch, height, width, rows):
    monkeypatch.setattr(banded, "BAND", rows * 4 * width)
    monkeypatch.setattr(banded, "FOLD_FROM", 0)
    x, weight, bias = random(2, 4, height, width), random(6, 4, 3, 3, seed=1), random(6, seed=2)
    torch.testing.assert_close(upsample_conv(x, weight, bias), plain(x, weight, bias))
    torch.testing.assert_close(upsample_conv(x, weight, None), plain(x, weight, None))


def test_its_gradients_are_those_of_the_plain_one():
    tensors = [random(2, 4, 17, 16).requires_grad_(), random(6, 4, 3, 3, seed=1).requires_grad_()]
    upstream = random(2, 6, 34, 32, seed=3)
    ours, expected = (torch.autograd.grad(f(*tensors, None), tensors, upstream) for f in (upsample_conv, plain))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_large_inputs_take_the_short_way_and_small_ones_do_not(monkeypatch):
    calls: list[torch.Size] = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, w, *a, **o: calls.append(w.shape[-2:]) or convolve(x, w, *a, **o))
    upsample_conv(random(1, 4, 15, 17), random(4, 4, 3, 3), None)
    assert calls == [(3, 3)]
    calls.clear()
    upsample_conv(random(1, 4, 16, 16), random(4, 4, 3, 3), None)
    assert calls == [(2, 2)] * 4
