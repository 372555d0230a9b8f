"""SwinUNet: equal to the official network where vectors exist, exact in its attention, and safe at any size."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from retinashift.models import banded, window_attention
from retinashift.models.swin_unet import ResBlock, SwinUNet, pad_to_multiple
from retinashift.models.window_attention import SwinBlock, SwinLayer

TINY: dict[str, Any] = {
    "image_size": 16, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": [1, 1],
    "attention_resolutions": [16, 8], "num_head_channels": 16, "swin_embed_dim": 32, "window_size": 4,
    "mlp_ratio": 2, "lq_size": 16,
}  # fmt: skip


def tiny(*, trained: bool = True, **changes: Any) -> SwinUNet:
    """`trained` fills the layers that start at zero, so that every parameter matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SwinUNet(**(TINY | changes)).eval()
        if trained:
            for name, parameter in net.named_parameters():
                if parameter.dim() > 1:
                    std = 0.5 if name.endswith("table") else parameter[0].numel() ** -0.5
                    torch.nn.init.normal_(parameter, std=std)
    return net


def inputs(height: int, width: int, batch: int = 2, ratio: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(batch, 3, height, width, generator=generator)
    lq = torch.rand(batch, 3, height * ratio, width * ratio, generator=generator) * 2 - 1
    return sample, torch.arange(batch) + 1, lq


# parity with the official network


def load_recipe(parity: Any, module: torch.nn.Module) -> torch.nn.Module:
    module.load_state_dict(parity.recipe_weights(module))
    return module.eval()


@pytest.mark.shared
@torch.no_grad()
def test_blocks_equal_the_official_blocks(parity):
    vectors = parity.vectors("blocks")
    for shift, size in itertools.product((0, 4), ("16x16", "16x24")):
        block = load_recipe(parity, SwinBlock(32, 2, 8, shift, 2, "official"))
        parity.check("blocks", f"swin.shift{shift}_{size}", block(vectors[f"swin.x_{size}"]), 1e-5)
    for name, window in (("basiclayer", 4), ("basiclayer_noshift", 8)):
        layer = SwinLayer(64, 32, 8, window, depth=2, heads=2, mlp_ratio=2, attention_mask="official")
        parity.check("blocks", f"{name}.y", load_recipe(parity, layer)(vectors[f"{name}.x"]), 1e-5)
    block = load_recipe(parity, ResBlock(32, 64, 48))
    parity.check("blocks", "resblock.y", block(vectors["resblock.x"], vectors["resblock.emb"]), 1e-5)
    for width in (32, 160):
        embedding = get_timestep_embedding(vectors["timestep_embedding.t"], width, True, 0)
        parity.check("blocks", f"timestep_embedding.dim{width}", embedding, 1e-5)


def network(parity: Any, name: str) -> SwinUNet:
    return SwinUNet(**parity.options(name), attention_mask="official")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["unet_a", "unet_nano", "unet_r1", "unet_r2", "unet_r3", "unet_r5", "unet_r6"])
@torch.no_grad()
def test_outputs_equal_the_official_networks(parity, name):
    compare_outputs(parity, name, "unet")


@pytest.mark.shared
@torch.no_grad()
def test_outputs_equal_the_official_network_at_full_size(parity):
    compare_outputs(parity, "full_realsr_unet", "unet_full")


def compare_outputs(parity: Any, name: str, file: str) -> None:
    with torch.device("meta"):
        net = network(parity, name).eval()
    net.load_state_dict(parity.weights(name, net), assign=True)
    vectors = parity.vectors(file, f"{name}.")
    for case in sorted({key.split(".")[0] for key in vectors}):
        given = {key.removeprefix(f"{case}."): value for key, value in vectors.items() if key.startswith(f"{case}.")}
        batch, _, height, width = given["y"].shape
        sides = height * net.lq_ratio, width * net.lq_ratio
        if "x_seed" in given:
            given["x"] = 1.5 * parity.image(given["x_seed"], batch, net.config.in_channels, height, width)
        if "lq_seed" in given:
            given["lq"] = parity.image(given["lq_seed"], batch, 3, *sides)
        output = net(given["x"], given["t"], given["lq"]).sample
        parity.check(file, f"{name}.{case}.y", output, 1e-4)


@pytest.mark.shared
def test_the_released_network_has_the_published_parameters_and_nothing_else(parity):
    with torch.device("meta"):
        net = network(parity, "full_realsr_unet")
    assert sum(parameter.numel() for parameter in net.parameters()) == 118_593_583
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == parity.parameters("full_realsr_unet")
    assert net.size_multiple == 64


def test_the_defaults_are_the_released_network():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in SwinUNet().parameters()) == 118_593_583


# sizes


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 20), (13, 18), (17, 16)])
@pytest.mark.parametrize("ratio", [1, 4])
@torch.no_grad()
def test_any_size_passes_and_the_output_has_the_states_size(height, width, ratio):
    sample, timestep, lq = inputs(height, width, ratio=ratio)
    assert tiny(lq_size=16 * ratio)(sample, timestep, lq).sample.shape == sample.shape


@torch.no_grad()
def test_an_odd_size_is_the_crop_of_the_padded_picture():
    net = tiny(lq_size=64)
    sample, timestep, lq = inputs(13, 18, ratio=4)
    padded = net(pad_to_multiple(sample, 8), timestep, pad_to_multiple(lq, 32)).sample
    assert padded.shape[-2:] == (16, 24)
    assert torch.equal(net(sample, timestep, lq).sample, padded[..., :13, :18])


def test_exact_multiples_are_not_padded_and_others_keep_their_pixels():
    image = torch.rand(1, 2, 8, 16)
    assert pad_to_multiple(image, 8) is image
    for piece in (image[..., :6], image[..., :1, :1]):
        padded = pad_to_multiple(piece, 8)
        assert padded.shape[-2:] == (8, 8)
        assert torch.equal(padded[..., : piece.shape[-2], : piece.shape[-1]], piece)


@pytest.mark.parametrize(
    ("window_size", "windows", "shifts"), [(4, [4, 4], [2, 2]), (8, [8, 8], [4, 0]), (16, [16, 8], [0, 0])]
)
def test_a_level_no_larger_than_the_window_is_the_window_and_never_shifts(window_size, windows, shifts):
    layers = [
        module for module in tiny(window_size=window_size).input_blocks.modules() if isinstance(module, SwinLayer)
    ]
    assert [[block.window for block in layer.blocks] for layer in layers] == [[w, w] for w in windows]
    assert [[block.shift for block in layer.blocks] for layer in layers] == [[0, s] for s in shifts]


# behaviour


def test_weights_that_change_between_calls_change_the_output():
    net = tiny()
    with torch.no_grad():
        before = net(*inputs(16, 16)).sample
        for name, parameter in net.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.neg_()
        assert (net(*inputs(16, 16)).sample - before).abs().max() > 1e-3


def test_gradients_flow_to_the_position_bias():
    net = tiny()
    net(*inputs(16, 16)).sample.square().sum().backward()
    tables = [p for name, p in net.named_parameters() if name.endswith("relative_position_bias_table")]
    assert all(table.grad.abs().max() > 0 for table in tables)


@torch.no_grad()
def test_a_number_as_timestep_means_the_whole_batch():
    net = tiny()
    sample, _, lq = inputs(8, 8)
    expected = net(sample, torch.tensor([2, 2]), lq).sample
    assert torch.equal(net(sample, 2, lq).sample, expected)
    assert torch.equal(net(sample, torch.tensor(2), lq, return_dict=False)[0], expected)


@torch.no_grad()
def test_a_batch_equals_its_elements():
    net = tiny()
    sample, timestep, lq = inputs(16, 8)
    together = net(sample, timestep, lq).sample
    for i in range(2):
        alone = net(sample[i : i + 1], timestep[i : i + 1], lq[i : i + 1]).sample
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_output_depends_on_state_condition_and_timestep():
    net = tiny()
    sample, timestep, lq = inputs(8, 8)
    base = net(sample, timestep, lq).sample
    for other in (
        net(sample * 0.9, timestep, lq).sample,
        net(sample, timestep + 1, lq).sample,
        net(sample, timestep, lq * 0.9).sample,
    ):
        assert (base - other).abs().max() > 1e-4


@torch.no_grad()
def test_an_output_that_starts_at_zero_is_zero_when_untrained():
    assert not tiny(trained=False, zero_init_output=True)(*inputs(8, 8)).sample.any()
    assert tiny(trained=False)(*inputs(8, 8)).sample.any()


@pytest.mark.parametrize("changes", [{}, {"resblock_updown": True, "use_scale_shift_norm": False, "patch_norm": True}])
def test_gradients_reach_every_parameter(changes):
    net = tiny(lq_size=32, **changes).train()
    net(*inputs(13, 16, ratio=2)).sample.square().mean().backward()
    unreached = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_gradient_checkpointing_changes_no_gradient():
    plain = tiny().train()
    saving = copy.deepcopy(plain)
    saving.enable_gradient_checkpointing()
    for net in (plain, saving):
        net(*inputs(8, 8)).sample.square().mean().backward()
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_saving_and_loading_is_exact(tmp_path):
    net = tiny(attention_mask="official", lq_size=32)
    net.save_pretrained(tmp_path)
    again = SwinUNet.from_pretrained(tmp_path)
    assert again.config.attention_mask == "official"
    with torch.no_grad():
        assert torch.equal(again(*inputs(16, 16, ratio=2)).sample, net(*inputs(16, 16, ratio=2)).sample)


@torch.no_grad()
def test_half_precision_stays_near_and_in_its_type():
    net = tiny()
    sample, timestep, lq = inputs(13, 16)
    expected = net(sample, timestep, lq).sample
    output = net.to(torch.bfloat16)(sample.bfloat16(), timestep, lq.bfloat16()).sample
    assert output.dtype == torch.bfloat16
    assert (output - expected).abs().mean() < 0.05 * expected.abs().mean()


@torch.no_grad()
def test_the_whole_network_is_one_graph():
    net = tiny(channel_mult=[1], num_res_blocks=1, attention_resolutions=[16])
    compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=False)
    # compiled, the plain operations are used instead of bands
    torch.testing.assert_close(compiled(*inputs(13, 16)).sample, net(*inputs(13, 16)).sample, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", ["official", "swin"])
@torch.no_grad()
def test_working_on_few_tokens_at_once_changes_nothing(monkeypatch, mask):
    net = tiny(attention_mask=mask)
    expected = net(*inputs(16, 24)).sample
    with torch.enable_grad():
        plain = net(*inputs(16, 24)).sample.detach()
    monkeypatch.setattr(window_attention, "AT_ONCE", 5 * 16)  # less than a row of windows: a row is taken
    monkeypatch.setattr(banded, "BAND", 1000)
    for other in (net(*inputs(16, 24)).sample, plain):
        torch.testing.assert_close(other, expected, atol=2e-5, rtol=0)


# refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_mask": "textbook"}, "attention_mask is 'textbook'; it must be 'swin' or 'official'"),
        ({"image_size": 12, "lq_size": 12}, "image_size is 12; it must be a multiple of 8 with 2 levels"),
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
        ({"lq_size": 48}, "lq_size is 48; it must be image_size, 16, times a power of 2"),
        ({"lq_size": 8}, "lq_size is 8"),
        (
            {"attention_resolutions": [16, 4]},
            r"attention_resolutions is \[16, 4\]; it must be of the levels' \[16, 8\]",
        ),
        ({"num_res_blocks": [1]}, "num_res_blocks has 1 entries; it must have 2, as channel_mult"),
        ({"channel_mult": []}, "channel_mult is empty"),
        ({"model_channels": 48}, "model_channels [*] channel_mult is 48; it must be a multiple of 32"),
        ({"swin_embed_dim": 40}, "swin_embed_dim is 40; it must be a multiple of 32"),
        ({"num_head_channels": 24}, "num_head_channels is 24; it must divide swin_embed_dim, 32"),
        ({"num_head_channels": -1}, "num_heads is -1; it must divide swin_embed_dim, 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        SwinUNet(**(TINY | changes))
    assert "\n" not in str(caught.value)


def test_inputs_that_do_not_fit_are_refused_in_one_line():
    sample, timestep, lq = inputs(8, 6)
    with pytest.raises(ValueError, match="lq is 5x8; for a sample of 6x8 it must be 6x8"):
        tiny()(sample, timestep, lq[..., :5])
    with pytest.raises(ValueError, match="lq is 6x8; for a sample of 6x8 it must be 12x16"):
        tiny(lq_size=32)(sample, timestep, lq)
