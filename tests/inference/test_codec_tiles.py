"""The codec by tiles: nothing lost between them, no edges, bounded memory."""

from __future__ import annotations

import pytest
import torch

from retinashift.inference import codec_tiles
from retinashift.inference.tiling import blend_tiles, plan_tiles
from retinashift.models.vq import VQCodec


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
    latent = codec_tiles.encode(Pointwise, image, side=32)
    torch.testing.assert_close(latent, Pointwise.encode(image).latents)
    torch.testing.assert_close(codec_tiles.decode(Pointwise, latent, side=32), Pointwise.decode(latent).sample)


@torch.no_grad()
def test_where_tiles_meet_the_picture_is_no_rougher_than_elsewhere():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = VQCodec(block_out_channels=[32, 32], layers_per_block=1, num_vq_embeddings=64).eval()
    smooth = torch.linspace(-1, 1, 64)[None, None, None].expand(1, 3, 64, 64).contiguous()
    tiles = plan_tiles(64, 64, 32, codec_tiles.MARGIN)

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
    codec_tiles.decode(Pointwise, torch.zeros(1, 3, 128, 128))
    assert sizes == [(128, 128)]
    sizes.clear()
    codec_tiles.decode(Pointwise, torch.zeros(1, 3, 200, 300))
    assert len(sizes) > 1
    assert max(max(size) for size in sizes) <= codec_tiles.SIDE + 2 * codec_tiles.MARGIN


def test_a_size_that_is_no_multiple_or_a_tile_too_small_is_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        codec_tiles.encode(Pointwise, torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match="at least 32"):
        codec_tiles.decode(Pointwise, torch.zeros(1, 3, 8, 8), side=8)
