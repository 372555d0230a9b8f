"""Tiles keep every position once and are blended without seams; a learned codec takes large pictures by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.inference import tiles as tiles_module
from retinashift.inference.tiles import LearnedCodec, blend_tiles, plan_tiles, scaled
from retinashift.models.vq import VQCodec


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


class Pointwise:
    """A codec whose tiles equal the whole: repetition and its mean, two times smaller."""

    config = VQCodec(block_out_channels=[32, 32], layers_per_block=1, num_vq_embeddings=4).config

    @staticmethod
    def encode(x):
        return type("Latents", (), {"latents": torch.nn.functional.avg_pool2d(x, 2)})

    @staticmethod
    def decode(z):
        return type("Sample", (), {"sample": z.repeat_interleave(2, -1).repeat_interleave(2, -2)})


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 70), (100, 33), (65, 97)])
def test_tiles_of_a_pointwise_codec_add_up_to_the_whole(height, width):
    image = torch.rand(1, 3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(0))
    latent = LearnedCodec(Pointwise).encode(image, side=32)
    torch.testing.assert_close(latent, Pointwise.encode(image).latents)
    torch.testing.assert_close(LearnedCodec(Pointwise).decode(latent, side=32), Pointwise.decode(latent).sample)


@torch.no_grad()
def test_where_tiles_meet_the_picture_is_no_rougher_than_elsewhere():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = VQCodec(block_out_channels=[32, 32], layers_per_block=1, num_vq_embeddings=64).eval()
    smooth = torch.linspace(-1, 1, 64)[None, None, None].expand(1, 3, 64, 64).contiguous()
    tiles = plan_tiles(64, 64, 32, tiles_module.MARGIN)

    def decoded(tile):
        rows, columns = tile.read
        return codec.decode(smooth[..., rows, columns], force_not_quantize=True).sample

    image = blend_tiles(decoded, tiles, 64, 64, 2)
    steps = image.diff(dim=-1).abs().mean((0, 1, 2))  # (127,), between neighbouring columns
    overlap = slice(2 * 24 - 2, 2 * 40 + 2)
    assert steps[overlap].max() < 1.5 * steps[8:-8].max().clamp(min=1e-6)


def test_small_pictures_are_taken_whole_and_large_ones_are_not(monkeypatch):
    sizes: list[tuple[int, ...]] = []
    decode = Pointwise.decode
    monkeypatch.setattr(Pointwise, "decode", lambda z: sizes.append(tuple(z.shape[-2:])) or decode(z))
    LearnedCodec(Pointwise).decode(torch.zeros(1, 3, 128, 128))
    assert sizes == [(128, 128)]
    sizes.clear()
    LearnedCodec(Pointwise).decode(torch.zeros(1, 3, 200, 300))
    assert len(sizes) > 1
    assert max(max(size) for size in sizes) <= tiles_module.SIDE + 2 * tiles_module.MARGIN


def test_a_size_that_is_no_multiple_or_a_tile_too_small_is_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        LearnedCodec(Pointwise).encode(torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match="at least 32"):
        LearnedCodec(Pointwise).decode(torch.zeros(1, 3, 8, 8), side=8)
