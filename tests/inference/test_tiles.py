"""Tiles add up without seams; learned codecs and a SwinUNet take large pictures by them."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.chain import planned_side, predict_by_tiles
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models import codec as codecs
from retinashift.models.codec import LearnedCodec, blend_tiles
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(12, 40), scale=st.integers(1, 3))
def test_tiles_of_one_picture_add_up_to_it_and_none_is_larger_than_asked_for(height, width, side, scale):
    picture = torch.randn(1, 2, height * scale, width * scale, generator=torch.Generator().manual_seed(0))
    sides = []

    def work(cut):
        piece = cut(picture, scale)
        sides.append(max(piece.shape[-2:]))
        return piece

    blended = blend_tiles(work, (height, width), side, 3, scale)
    assert torch.allclose(blended, picture, atol=1e-5)
    assert max(sides) <= (side + 2 * 3) * scale


def test_tiles_that_disagree_fade_into_one_another_without_a_step():
    line, values = torch.zeros(1, 1, 1, 64), count()
    row = blend_tiles(lambda cut: torch.full_like(cut(line, 1), float(next(values))), (1, 64), 16, 4)[0, 0, 0]
    assert row[0] == 0
    assert row[-1] == next(values) - 1 > 1
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
def test_tiles_of_a_pointwise_codec_add_up_to_the_whole(height, width, monkeypatch):
    monkeypatch.setattr(codecs, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(codecs, "SIDE", 32)
    image = torch.rand(1, 3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(0))
    latent = LearnedCodec(Pointwise).encode(image)
    torch.testing.assert_close(latent, Pointwise.encode(image).latents)
    torch.testing.assert_close(LearnedCodec(Pointwise).decode(latent), Pointwise.decode(latent).sample)


@torch.no_grad()
def test_where_tiles_meet_the_picture_is_no_rougher_than_elsewhere():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = VQCodec(block_out_channels=[32, 32], layers_per_block=1, num_vq_embeddings=64).eval()
    smooth = torch.linspace(-1, 1, 64)[None, None, None].expand(1, 3, 64, 64).contiguous()
    image = blend_tiles(
        lambda cut: codec.decode(cut(smooth, 1), force_not_quantize=True).sample, (64, 64), 32, codecs.MARGIN, 2
    )
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
    assert max(max(size) for size in sizes) <= codecs.SIDE + 2 * codecs.MARGIN


def test_a_size_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        LearnedCodec(Pointwise).encode(torch.zeros(1, 3, 7, 8))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwinUNet(
            image_size=8, in_channels=48, out_channels=48, model_channels=32, channel_mult=[1, 1],
            num_res_blocks=[1, 1], attention_resolutions=[8], num_head_channels=16, swin_embed_dim=32, window_size=4,
            mlp_ratio=2, lq_size=8,
        ).eval()  # fmt: skip


def local(sample, lq):
    """Looks at one position only, so that tiles must not be seen at all."""
    return sample * 2 + lq.mean(1, keepdim=True)


def test_tiles_of_a_local_prediction_are_the_whole_prediction(net):
    generator = torch.Generator().manual_seed(0)
    sample, lq = (torch.randn(1, c, 250, 130, generator=generator) for c in (48, 3))
    tiled = predict_by_tiles(local, net, sample, lq, side=96)
    assert torch.allclose(tiled, local(sample, lq), atol=1e-5)


def test_what_fits_is_one_call_and_what_does_not_is_several(net):
    calls = []

    def noted(sample, lq):
        calls.append(sample.shape[-2:])
        return sample

    sample, lq = torch.zeros(1, 48, 96, 96), torch.zeros(1, 3, 96, 96)
    predict_by_tiles(noted, net, sample, lq, side=96)
    assert calls == [(96, 96)]
    calls.clear()
    predict_by_tiles(noted, net, torch.zeros(1, 48, 96, 300), torch.zeros(1, 3, 96, 300), side=96)
    assert len(calls) > 1
    assert max(width for _, width in calls) <= 96


def test_memory_that_runs_out_halves_the_tiles_and_at_last_says_so_in_one_line(net):
    def greedy(sample, lq):
        if sample.shape[-1] > limit:
            raise MemoryError
        return sample

    sample, lq = torch.ones(1, 48, 300, 300), torch.ones(1, 3, 300, 300)
    limit = 100
    assert torch.allclose(predict_by_tiles(greedy, net, sample, lq, side=400), sample, atol=1e-5)
    limit = 10
    with pytest.raises(MemoryError, match="close other programs"):
        predict_by_tiles(greedy, net, sample, lq, side=400)


def test_more_memory_means_larger_tiles_of_whole_windows(net):
    sides = [planned_side(net, memory) for memory in (1, 2**26, 2**28, 2**32)]
    assert sides == sorted(sides)
    assert all(side % net.size_multiple == 0 for side in sides)
    assert sides[-1] > sides[0]


@torch.no_grad()
def test_a_picture_by_tiles_is_nearly_the_whole_one_and_no_rougher_where_tiles_meet(net, monkeypatch, retina):
    pipeline = ResShiftPipeline(net, ResShiftScheduler(4, kappa=0.06, prediction_type="residual", input_scaling="none"))
    net.out[-1].weight.mul_(0.02)  # detail of a few grey levels, as a trained network has
    lr = np.ascontiguousarray(np.tile(retina, (1, 2, 1))[:112, :200])
    plain = enlarge(lr, 4, "bicubic").astype(int)
    whole = pipeline(lr).images[0].astype(int)
    monkeypatch.setattr("retinashift.inference.chain.planned_side", lambda *_: 96)
    tiled = pipeline(lr).images[0].astype(int)
    assert not np.array_equal(tiled, whole)
    assert np.abs(whole - plain).mean() > 1
    assert np.abs(tiled - whole).mean() < 0.2 * np.abs(whole - plain).mean()  # what group norms make of less to see
    steps = (np.abs(np.diff(image, axis=1)).mean((0, 2))[:796] for image in (tiled, whole))  # between columns
    rough = [step.reshape(-1, 4).mean(1) for step in steps]  # by column of the input
    assert (rough[0] < 1.1 * rough[1] + 0.1).all()
