"""Tiles keep every position once and change nothing that a grader could see."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.inference.tiling import blend_tiles, plan_tiles, scaled


@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40), margin=st.integers(0, 20))
def test_every_position_is_kept_once_and_read_with_its_margin(height, width, side, margin):
    seen = np.zeros((height, width), int)
    for tile in plan_tiles(height, width, side, margin):
        seen[tile.kept] += 1
        for kept, read, length in zip(tile.kept, tile.read, (height, width), strict=True):
            assert 1 <= kept.stop - kept.start <= side
            assert read.start == max(0, kept.start - margin)
            assert read.stop == min(length, kept.stop + margin)
    assert (seen == 1).all()


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 50), width=st.integers(1, 50), side=st.integers(12, 30), scale=st.integers(1, 3))
def test_tiles_of_one_picture_add_up_to_it(height, width, side, scale):
    picture = torch.randn(1, 2, height * scale, width * scale, generator=torch.Generator().manual_seed(0))

    def cut(tile):
        rows, columns = scaled(tile.read, scale)
        return picture[..., rows, columns]

    tiles = plan_tiles(height, width, side, margin=3)
    assert torch.allclose(blend_tiles(cut, tiles, height, width, scale), picture, atol=1e-5)


def test_tiles_that_disagree_fade_into_one_another_without_a_step():
    tiles = plan_tiles(1, 64, 16, margin=4)
    values = iter(range(len(tiles)))

    def one(tile):
        return torch.full((1, 1, 1, tile.read[1].stop - tile.read[1].start), float(next(values)))

    row = blend_tiles(one, tiles, 1, 64)[0, 0, 0]
    assert row[0] == 0
    assert row[-1] == len(tiles) - 1
    assert 0 <= float(row.diff().min()) <= float(row.diff().max()) <= 1 / (2 * 4) + 1e-6


def test_the_stated_receptive_radius_is_the_true_one(tiny_pipeline):
    """A change at one position reaches exactly as far as the network says."""
    net = tiny_pipeline().denoiser
    lq = torch.zeros(1, 3, 41, 41)
    sample = torch.zeros(1, 48, 41, 41)
    base = net(sample, 3, lq).sample
    for name in ("sample", "lq"):
        moved = {"sample": sample.clone(), "lq": lq.clone()}
        moved[name][..., 20, 20] += 1
        changed = (net(moved["sample"], 3, moved["lq"]).sample - base).abs().sum(1)[0] > 0  # (41, 41)
        rows = changed.any(1).nonzero().flatten()
        reach = max(20 - int(rows.min()), int(rows.max()) - 20)
        assert reach <= net.receptive_radius
    assert reach >= net.receptive_radius - 1
