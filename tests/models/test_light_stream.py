"""LightNet by bands of rows gives the numbers of the whole picture, and no layer gets thicker bands than it must."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.models.codec import upsample_bicubic
from retinashift.models.light_net import LightNet, LightStream, RowQueue
from retinashift.models.uncertainty_head import UncertaintyHead


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LightNet(factor=2, width=8, depth=2, time_width=16)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


@torch.inference_mode()
def both(net, height, width, band):
    """The whole call and the bands, (1, C, h, w) and a list of (1, C, n, w); of the net, then of a head."""
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
    y0 = torch.nn.functional.pixel_unshuffle(upsample_bicubic(lq, 2), 2)
    x = y0 + 0.1 * torch.randn(y0.shape, generator=generator)
    head, scales = head_of(net), []
    stream, bands = LightStream(net, 1, height, band, (head, SimpleNamespace(write=scales.append))), []
    for top in range(0, height, band):
        here = (..., slice(top, top + band), slice(None))
        bands += stream.push((x - y0)[here], lq[here])
    features = net.features(x, 1, lq)
    return (net(x, 1, lq).sample, bands), (head(features), scales)


def head_of(net):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = UncertaintyHead(net.config.width, 6, net.config.factor)
        torch.nn.init.normal_(head.write.weight, std=0.5)
    return head.eval()


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 40), width=st.integers(1, 40), band=st.integers(1, 45))
def test_any_size_in_any_bands_equals_the_whole(net, height, width, band):
    for whole, bands in both(net, height, width, band):
        assert torch.allclose(torch.cat(bands, dim=-2), whole, atol=1e-4)
        assert max(rows.shape[-2] for rows in bands) <= 2 * band


@torch.inference_mode()
def test_rows_come_as_soon_as_all_that_they_depend_on_is_there(net):
    stream = LightStream(net, 1, 40)
    rows = torch.zeros(1, 12, 1, 5), torch.zeros(1, 3, 1, 5)
    given_before = [sum(band.shape[-2] for band in stream.push(*rows)) for _ in range(20)]
    assert given_before == [0] * stream.lag + [1] * (20 - stream.lag)


def test_a_queue_returns_rows_in_order_however_they_were_cut():
    queue, rows = RowQueue(), torch.arange(12.0).view(1, 1, 12, 1)
    for piece in rows.split([5, 1, 6], dim=-2):
        queue.push(piece)
    assert torch.equal(torch.cat([queue.take(count) for count in (2, 0, 7, 3)], dim=-2), rows)
