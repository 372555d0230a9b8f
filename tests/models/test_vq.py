"""VQCodec: diffusers' VQModel in what it computes, leaner in how."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import nn

from retinashift.models import banded, vq
from retinashift.models.banded import conv_of_norm
from retinashift.models.vq import ResBlock, VQCodec, nearest_codes


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny(**changes) -> VQCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"block_out_channels": [32, 64], "layers_per_block": 1, "num_vq_embeddings": 16}
        return VQCodec(**(options | changes)).eval()


@torch.no_grad()
def test_it_is_diffusers_model_where_that_can_express_it():
    ours = tiny(block_out_channels=[32, 32, 64], layers_per_block=2)
    theirs = VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[32, 32, 64], layers_per_block=2, num_vq_embeddings=16, vq_embed_dim=3,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    image = random(2, 3, 40, 64)
    latents = ours.encode(image).latents
    torch.testing.assert_close(latents, theirs.encode(image).latents, atol=5e-5, rtol=1e-5)
    for plain in (False, True):
        found, expected = (net.decode(latents, force_not_quantize=plain).sample for net in (ours, theirs))
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("depths", [[1, 2], [2, 1], [3, 3]])
def test_each_level_has_its_own_number_of_blocks(depths):
    codec = tiny(layers_per_block=depths)
    assert [len(block.resnets) for block in codec.encoder.down_blocks] == depths
    assert [len(block.resnets) for block in codec.decoder.up_blocks] == [d + 1 for d in reversed(depths)]
    assert codec(random(1, 3, 16, 24)).sample.shape == (1, 3, 16, 24)


@pytest.mark.parametrize("distances", [1, 100, 2**20])
def test_the_nearest_code_is_found_whatever_the_chunk(monkeypatch, distances):
    monkeypatch.setattr(vq, "DISTANCES", distances)
    z, codes = random(37, 5), random(11, 5, seed=1)
    assert torch.equal(nearest_codes(z, codes), torch.cdist(z, codes).argmin(1))


def test_the_search_never_holds_all_distances():
    z, codes = random(2**14, 3), random(8192, 3, seed=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nearest_codes(z, codes)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 2**14 * 8192 * 4 / 100


@torch.no_grad()
def test_the_middle_holds_no_matrix_of_all_pairs():
    codec = tiny(block_out_channels=[32])
    x = random(1, 32, 96, 96)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        codec.encoder.mid_block(x)
    assert max(event.cpu_memory_usage for event in profile.events()) < (96 * 96) ** 2 * 4 / 10


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("channels_out", [32, 64])
@torch.no_grad()
def test_bands_of_rows_change_nothing(monkeypatch, rows, channels_out):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = ResBlock(in_channels=32, out_channels=channels_out, temb_channels=None, eps=1e-6)
        for parameter in block.parameters():
            nn.init.normal_(parameter, mean=0.1, std=0.2)
    x = random(2, 32, 10, 7)
    with torch.enable_grad():
        expected = block(x.clone()).detach()
    monkeypatch.setattr(banded, "BAND", rows * 32 * 7)
    torch.testing.assert_close(block(x.clone()), expected, atol=1e-4, rtol=1e-5)
    turned = x.permute(0, 1, 3, 2)  # not contiguous
    expected = block.conv1(nn.functional.silu(block.norm1(turned)))
    torch.testing.assert_close(conv_of_norm(turned, block.norm1, block.conv1), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_picture_and_a_latent_are_not_overwritten():
    codec, image, latent = tiny(), random(1, 3, 16, 16), random(1, 3, 8, 8)
    for x, work in ((image, codec.encode), (latent, codec.decode)):
        before = x.clone()
        work(x)
        assert torch.equal(x, before)


def test_gradients_pass_straight_through_the_codebook():
    codec = tiny()
    latent = random(1, 3, 8, 8).requires_grad_()
    quantised, loss, _ = codec.quantize(latent)
    quantised.sum().backward()
    assert torch.equal(latent.grad, torch.ones_like(latent))
    assert loss > 0


def test_saving_and_loading_is_exact(tmp_path):
    codec = tiny(layers_per_block=[1, 2], attention_levels=[1])
    codec.save_pretrained(tmp_path)
    again = VQCodec.from_pretrained(tmp_path)
    state = codec.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"layers_per_block": [1]}, "layers_per_block has 1"), ({"attention_levels": [2]}, "levels 0 to 1")],
)
def test_numbers_that_do_not_fit_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        tiny(**changes)
