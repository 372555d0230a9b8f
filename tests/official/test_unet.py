"""The official denoiser through the importer: found by its weights, equal in output, and unchanged on the way back."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from retinashift.models.swin_unet import SwinUNet
from retinashift.official.convert import read_official
from retinashift.official.networks import (
    DERIVED,
    OfficialError,
    seen_image_size,
    swin_unet_config,
    swin_unet_from_official,
    swin_unet_to_official,
)

TOLERANCE = 1e-4  # of the vectors' README, for network outputs
STORED = {"unet_a": "unet_a.safetensors", "unet_nano": "unet_nano_training_ckpt.pth"}
RECIPE = ["unet_r1", "unet_r2", "unet_r3", "unet_r5", "unet_r6"]
FULL = {"full_realsr_unet": 118_593_583, "full_faceir_unet": 118_931_604}


def learnt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the entries that follow from the sizes."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(DERIVED)}


def manifest(parity, name: str) -> dict[str, Tensor]:
    """The state dict of a network, shapes only."""
    entries = json.loads((parity.folder / "manifests" / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape in entries.items()}


def tiny(**changes) -> SwinUNet:
    options = {
        "image_size": 16, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": [1, 2],
        "attention_resolutions": [16, 8], "num_head_channels": 16, "swin_embed_dim": 32, "window_size": 4,
        "mlp_ratio": 2, "lq_size": 16, "attention_mask": "official",
    }  # fmt: skip
    return SwinUNet(**(options | changes)).eval()


@pytest.mark.shared
@pytest.mark.parametrize("name", STORED)
@torch.no_grad()
def test_an_imported_file_gives_the_official_outputs(parity, name):
    net = swin_unet_from_official(read_official(parity.folder / "weights" / STORED[name]))
    vectors = parity.vectors("unet", f"{name}.")
    cases = {key.split(".")[0] for key in vectors}
    assert len(cases) >= 2
    for case in cases:
        x, t, lq, y = (vectors[f"{case}.{part}"] for part in ("x", "t", "lq", "y"))
        assert (net(x, t, lq=lq).sample - y).abs().max() < TOLERANCE, case


@pytest.mark.shared
@pytest.mark.parametrize("name", STORED)
def test_official_to_ours_to_official_is_bit_identical_with_all_derived_entries(parity, name):
    official = read_official(parity.folder / "weights" / STORED[name])
    back = swin_unet_to_official(swin_unet_from_official(official))
    assert back.keys() == official.keys()
    for key, tensor in official.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(back[key], tensor), key


@pytest.mark.shared
@pytest.mark.parametrize("name", [*RECIPE, *FULL])
def test_every_name_and_shape_of_a_manifest_is_met_and_written_again(parity, name):
    official = manifest(parity, name)
    net = swin_unet_from_official(official)
    back = swin_unet_to_official(net)
    assert {key: tensor.shape for key, tensor in back.items()} == {key: t.shape for key, t in official.items()}
    if name in FULL:
        assert sum(parameter.numel() for parameter in net.parameters()) == FULL[name]


@pytest.mark.shared
@pytest.mark.parametrize("name", [*RECIPE, *FULL])
def test_the_arguments_found_are_the_official_ones(parity, name):
    found, official = swin_unet_config(manifest(parity, name)), parity.options(name)
    if name == "unet_r6":  # the number of heads for their width, one number for a list, and what has no effect there
        assert (found["swin_embed_dim"] // found["num_head_channels"], found["num_res_blocks"]) == (4, [1] * 4)
        official |= {key: found[key] for key in ("num_head_channels", "num_res_blocks", "conv_resample")}
    for key in found.keys() & official.keys():
        assert found[key] == official[key], key
    assert found["attention_mask"] == "official"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conv_resample": False},
        {"resblock_updown": True},
        {"attention_resolutions": [16]},
        {"attention_resolutions": [8]},
        {"lq_size": 64},
        {"in_channels": 8, "out_channels": 8, "lq_size": 32},
        {"patch_norm": True, "swin_depth": 3, "num_head_channels": 8},
        {"use_scale_shift_norm": False, "mlp_ratio": 4.0},
        {"channel_mult": [2, 1, 3], "num_res_blocks": [2, 1, 1], "attention_resolutions": [16, 4], "window_size": 4},
    ],
    ids=str,
)
def test_every_option_is_found_in_the_weights_and_gives_the_same_network(changes):
    net = tiny(**changes)
    again = swin_unet_from_official(swin_unet_to_official(net))
    assert again.config.image_size == net.config.image_size
    for name in ("lq_ratio", "size_multiple"):
        assert getattr(again, name) == getattr(net, name)
    shifts = [[(n, m.shift) for n, m in each.named_modules() if hasattr(m, "shift")] for each in (net, again)]
    assert shifts[0] == shifts[1]
    assert again.config.conv_resample == net.config.conv_resample
    assert list(again.config.num_res_blocks) == list(net.config.num_res_blocks)


def test_the_training_size_is_seen_in_cut_windows_or_masks_and_else_is_that_of_every_release():
    state = swin_unet_to_official(tiny(image_size=16, window_size=4))
    assert seen_image_size(learnt(state)) is None  # 16 and 8, windows of 4: any larger size has the same tensors
    assert seen_image_size(state) == 16
    assert swin_unet_config(learnt(state))["image_size"] == 64
    assert swin_unet_config(state)["image_size"] == 16
    cut = swin_unet_to_official(tiny(image_size=8, window_size=8, lq_size=8, attention_resolutions=[8, 4]))
    assert seen_image_size(learnt(cut)) == 8


def test_a_file_that_contradicts_itself_about_the_training_size_is_refused():
    state = swin_unet_to_official(tiny())
    state["input_blocks.1.1.blocks.1.attn_mask"] = torch.zeros(64, 16, 16)
    with pytest.raises(OfficialError, match=r"different training sizes.*\[16, 32\]"):
        swin_unet_from_official(state)


def test_missing_and_unexpected_names_are_listed():
    state = swin_unet_to_official(tiny())
    del state["input_blocks.1.0.in_layers.2.bias"]
    state["stranger.weight"] = torch.zeros(3)
    with pytest.raises(OfficialError, match=r"missing: input_blocks.1.0.in_layers.2.bias; unexpected: stranger.weight"):
        swin_unet_from_official(state)


@pytest.mark.parametrize("part", ["time_embed.0", "middle_block.1.", "input_blocks.3", "output_blocks.0", "out."])
def test_weights_that_lack_a_whole_part_are_one_line(part):
    state = swin_unet_to_official(tiny())
    with pytest.raises(OfficialError, match=r"missing|describe no network"):
        swin_unet_from_official({name: t for name, t in state.items() if not name.startswith(part)})


def test_no_single_tensor_can_be_lost_or_replaced():
    state = swin_unet_to_official(tiny(lq_size=32))
    damages = [None, torch.zeros(()), torch.zeros(0, 3), torch.zeros(5, 7, 1, 1)]
    for name, damage in zip([*learnt(state)][::5], itertools.cycle(damages), strict=False):  # each takes its turn
        others = {key: tensor for key, tensor in state.items() if key != name}
        with pytest.raises(OfficialError):
            swin_unet_from_official(others if damage is None else others | {name: damage})


@pytest.mark.parametrize(
    ("names", "said"),
    [(["quantize.embedding.weight"], "holds an autoencoder"), (["conv.weight"], "something else")],
)
def test_another_networks_weights_are_named(names, said):
    with pytest.raises(OfficialError, match=said):
        swin_unet_from_official(dict.fromkeys(names, torch.zeros(3, 3)))


def test_a_network_with_the_masks_of_the_swin_paper_is_not_exported():
    with pytest.raises(OfficialError, match="only SwinUNet with attention_mask='official'"):
        swin_unet_to_official(tiny(attention_mask="swin"))


@pytest.mark.shared
def test_the_weights_are_taken_over_without_a_copy(parity):
    state = load_file(parity.folder / "weights" / STORED["unet_a"])
    net = swin_unet_from_official(state)
    assert all(p.data_ptr() == state[name].data_ptr() and p.requires_grad for name, p in net.named_parameters())
