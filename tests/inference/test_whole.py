"""A SwinUNet by tiles: what fits is taken whole, the rest is faded together, and memory that runs out is no end."""

import numpy as np
import pytest
import torch

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.whole import planned_side, predict_by_tiles
from retinashift.models.swin_unet import SwinUNet


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

    def count(sample, lq):
        calls.append(sample.shape[-2:])
        return sample

    sample, lq = torch.zeros(1, 48, 96, 96), torch.zeros(1, 3, 96, 96)
    predict_by_tiles(count, net, sample, lq, side=96)
    assert calls == [(96, 96)]
    calls.clear()
    predict_by_tiles(count, net, torch.zeros(1, 48, 96, 300), torch.zeros(1, 3, 96, 300), side=96)
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
    net.out[-1].weight.mul_(0.02)  # detail of a few grey levels, as that of a trained network
    lr = np.ascontiguousarray(np.tile(retina, (1, 2, 1))[:112, :200])
    plain = enlarge(lr, 4, "bicubic").astype(int)
    whole = pipeline(lr).images[0].astype(int)
    monkeypatch.setattr("retinashift.inference.whole.planned_side", lambda *_: 96)
    tiled = pipeline(lr).images[0].astype(int)
    assert not np.array_equal(tiled, whole)
    assert np.abs(whole - plain).mean() > 1
    assert np.abs(tiled - whole).mean() < 0.2 * np.abs(whole - plain).mean()  # what group norms make of less to see
    steps = (np.abs(np.diff(image, axis=1)).mean((0, 2))[:796] for image in (tiled, whole))  # between columns
    rough = [step.reshape(-1, 4).mean(1) for step in steps]  # by column of the input
    assert (rough[0] < 1.1 * rough[1] + 0.1).all()
