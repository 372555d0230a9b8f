"""The official autoencoder as our VQCodec: the same numbers, and unchanged on the way back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file
from torch import Tensor

from retinashift.models.vq import VQCodec
from retinashift.official.networks import OfficialError, vq_from_official, vq_to_official

TOLERANCE = {
    "encode": 1e-4, "indices": 0, "quantised": 1e-5, "quant_loss": 1e-5,
    "decode": 5e-4, "decode_noquant": 5e-4, "forward": 5e-4,
}  # fmt: skip
ATTENTION_NAMES = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
NETWORKS = ["vq_a", "vq_r1", "vq_r2", "vq_r3"]
FULL = {
    "full_realsr_vq": (205, 55_322_782),
    "full_faceir_vq": (285, 77_009_115),
}


def manifest(parity, name: str) -> dict[str, Tensor]:
    entries = json.loads((parity.folder / "manifests" / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape in entries.items()}


def official_state(parity, name: str) -> dict[str, Tensor]:
    stored = parity.folder / "weights" / f"{name}.safetensors"
    if stored.exists():
        return load_file(stored)
    shapes = SimpleNamespace(named_parameters=manifest(parity, name).items)  # the recipe asks for nothing else
    return parity.recipe_weights(shapes)


def tiny() -> VQModel:
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[32, 64],
        num_vq_embeddings=8,
        vq_embed_dim=3,
    ).eval()


@pytest.mark.shared
@pytest.mark.parametrize("name", [*NETWORKS, "full_realsr_vq"])
@torch.no_grad()
def test_encode_quantise_and_decode_are_the_official_ones(parity, name):
    file = "vq_full" if name in FULL else "vq"
    vq = vq_from_official(official_state(parity, name))
    vectors = parity.vectors(file, f"{name}.")
    cases = {key.split(".")[0] for key in vectors}
    assert cases
    for case in cases:
        given = {key.split(".")[1]: value for key, value in vectors.items() if key.startswith(f"{case}.")}
        quantised, loss, (_, _, indices) = vq.quantize(given["latent"])
        found = {
            "encode": vq.encode(given["image"]).latents,
            "indices": indices.view(given["indices"].shape),
            "quantised": quantised,
            "quant_loss": loss,
            "decode": vq.decode(given["latent"]).sample,
            "decode_noquant": vq.decode(given["latent"], force_not_quantize=True).sample,
        }
        if "forward" in given:
            found["forward"] = vq(given["image"]).sample
        assert found.keys() == given.keys() - {"image", "latent"}
        for part, tensor in found.items():
            parity.check(file, f"{name}.{case}.{part}", tensor, TOLERANCE[part])


@pytest.mark.shared
@torch.no_grad()
def test_the_parts_of_the_autoencoder_are_the_official_ones(parity):
    vectors = parity.vectors("blocks")
    with torch.random.fork_rng(devices=[]):
        vq = VQCodec(block_out_channels=[32, 64], layers_per_block=1)
    parts = {
        "vq_attn": (VQCodec(block_out_channels=[32]).encoder.mid_block.attentions[0], ATTENTION_NAMES),
        "vq_down": (vq.encoder.down_blocks[0].downsamplers[0], {}),
        "vq_resnet": (vq.encoder.down_blocks[1].resnets[0], {"conv_shortcut": "nin_shortcut"}),
    }
    for name, (part, official) in parts.items():
        names = {ours: ".".join(official.get(p, p) for p in ours.split(".")) for ours, _ in part.named_parameters()}
        # to_out.0 is one official layer
        names = {ours: said.replace("proj_out.0", "proj_out") for ours, said in names.items()}
        shapes = {
            said: tensor[..., None, None] if tensor.dim() == 2 else tensor
            for said, tensor in zip(names.values(), dict(part.named_parameters()).values(), strict=True)
        }
        recipe = parity.recipe_weights(SimpleNamespace(named_parameters=shapes.items))
        part.load_state_dict(
            {ours: recipe[said].view(dict(part.named_parameters())[ours].shape) for ours, said in names.items()}
        )
        x = vectors[f"{name}.x"]
        parity.check("blocks", f"{name}.y", part(x, None) if name == "vq_resnet" else part(x), 1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("name", NETWORKS)
def test_official_to_ours_to_official_is_bit_identical(parity, name):
    official = official_state(parity, name)
    back = vq_to_official(vq_from_official(official))
    assert back.keys() == official.keys()
    for key, tensor in official.items():
        assert torch.equal(back[key], tensor), key


@pytest.mark.shared
@pytest.mark.parametrize("name", FULL)
def test_every_name_and_shape_of_a_full_size_manifest_is_met_and_written_again(parity, name):
    official = manifest(parity, name)
    vq = vq_from_official(official)
    assert {key: t.shape for key, t in vq_to_official(vq).items()} == {key: t.shape for key, t in official.items()}
    assert (len(official), sum(parameter.numel() for parameter in vq.parameters())) == FULL[name]


def test_missing_and_unexpected_names_are_listed_as_the_file_has_them():
    state = vq_to_official(tiny())
    del state["decoder.mid.attn_1.q.weight"]
    state["loss.weight"] = torch.zeros(3)
    with pytest.raises(OfficialError, match=r"missing: decoder.mid.attn_1.q.weight; unexpected: loss.weight"):
        vq_from_official(state)


def test_the_levels_of_the_decoder_count_from_the_finest():
    vq = tiny()
    state = vq_to_official(vq)
    finest = vq.decoder.up_blocks[-1].resnets[0].conv1.weight
    assert torch.equal(state["decoder.up.0.block.0.conv1.weight"], finest)
    assert "decoder.up.1.upsample.conv.weight" in state
    assert "encoder.down.0.downsample.conv.weight" in state


@pytest.mark.parametrize(
    ("name", "said"), [("input_blocks.0.0.weight", "holds a denoiser"), ("conv.weight", "something else")]
)
def test_another_networks_weights_are_named(name, said):
    with pytest.raises(OfficialError, match=said):
        vq_from_official({name: torch.zeros(3, 3)})
