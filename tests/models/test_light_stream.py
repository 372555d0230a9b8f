"""LightNet by bands of rows gives the numbers of the whole picture, on whichever columns are needed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.models import light_stream
from retinashift.models.codec import upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.light_stream import LightStream, Needed


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LightNet(factor=2, width=8, depth=2, time_width=16)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


@torch.inference_mode()
def both(net, height, width, band, columns):
    """The whole call and the one by bands, (1, C, h, w); none of these is thicker than twice what was pushed."""
    generator = torch.Generator().manual_seed(0)
    lq = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
    y0 = torch.nn.functional.pixel_unshuffle(upsample_bicubic(lq, 2), 2)
    x = y0 + 0.1 * torch.randn(y0.shape, generator=generator)
    stream, pieces, done = LightStream(net, 1, Needed(columns, width), most=band), [], 0
    for top in range(0, height, band):
        bottom = min(height, top + band)
        for rows in stream.push((x - y0)[..., top:bottom, :], lq[..., top:bottom, :], top, bottom == height):
            if rows.bottom > rows.top:
                assert rows.top == done
                assert rows.bottom - rows.top <= 2 * band
                done = rows.bottom
                pieces.append(rows.fitted(0, width))
    assert done == height
    return net(x, 1, lq=lq).sample, torch.cat(pieces, dim=-2)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), band=st.integers(1, 45))
def test_any_size_in_any_bands_equals_the_whole(net, height, width, band):
    whole, banded = both(net, height, width, band, np.tile(np.array([0, width]), (height, 1)))
    assert torch.allclose(banded, whole, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), height=st.integers(1, 30), band=st.integers(1, 20))
def test_needed_columns_are_exact_where_the_margin_is_what_the_network_looks_at(net, data, height, band):
    width = 150
    ends = data.draw(
        st.lists(st.tuples(st.integers(0, width), st.integers(0, width)), min_size=height, max_size=height)
    )
    columns = np.array([sorted(pair) for pair in ends])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(light_stream, "MARGIN", net.receptive_radius)
        whole, banded = both(net, height, width, band, columns)
    inside = torch.from_numpy((np.arange(width) >= columns[:, :1]) & (np.arange(width) < columns[:, 1:]))
    assert torch.allclose(banded[..., inside], whole[..., inside], atol=1e-4)


def test_columns_far_from_the_needed_ones_are_not_computed(net):
    columns = np.tile(np.array([100, 110]), (20, 1))
    _, banded = both(net, 20, 400, 5, columns)
    assert (banded[..., 200:] == 0).all()
    assert (banded[..., :64] == 0).all()


def test_values_further_inside_than_the_network_looks_are_exact_whatever_the_margin(net, monkeypatch):
    monkeypatch.setattr(light_stream, "MARGIN", 0)
    columns = np.tile(np.array([40, 80]), (40, 1))
    columns[:8] = columns[32:] = 0
    whole, banded = both(net, 40, 120, 7, columns)
    reach = net.receptive_radius
    here = (..., slice(8 + reach, 32 - reach), slice(40 + reach, 80 - reach))
    assert torch.allclose(banded[here], whole[here], atol=1e-4)
    assert not torch.allclose(banded[..., 8:32, 40:80], whole[..., 8:32, 40:80], atol=1e-4)


@pytest.mark.parametrize("depth", [2, 6])
def test_a_deeper_network_computes_no_more_columns(depth):
    net = LightNet(factor=2, width=8, depth=depth, time_width=16).eval()
    needed = light_stream.Needed(np.tile(np.array([100, 110]), (20, 1)), 400)
    stream = LightStream(net, 1, needed)
    extents = [needed.extent(4, 8, layer.radius) for block in stream.blocks for layer in (block.first, block.second)]
    assert min(left for left, _ in extents) >= 100 - light_stream.MARGIN - light_stream.COLUMN_STEP
    assert max(right for _, right in extents) <= 110 + light_stream.MARGIN + light_stream.COLUMN_STEP
