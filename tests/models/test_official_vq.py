"""The official autoencoder through diffusers' VQModel: the same numbers, and unchanged on the way back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from safetensors.torch import load_file
from torch import Tensor

from retinashift.models.official import OfficialError
from retinashift.models.official_vq import vq_from_official, vq_to_official

TOLERANCE = {"encode": 1e-4, "quantised": 1e-5, "decode": 5e-4, "decode_noquant": 5e-4, "forward": 5e-4}
NETWORKS = ["vq_a", "vq_r1"]


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
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_encode_quantise_and_decode_are_the_official_ones(parity, name):
    vq = vq_from_official(official_state(parity, name))
    vectors = parity.vectors("vq", f"{name}.")
    cases = {key.split(".")[0] for key in vectors}
    assert cases
    for case in cases:
        expected = {key.split(".")[1]: value for key, value in vectors.items() if key.startswith(f"{case}.")}
        image, latent = expected["image"], expected["latent"]
        quantised, _, (_, _, indices) = vq.quantize(latent)
        assert torch.equal(indices.view(expected["indices"].shape), expected["indices"])
        found = {
            "encode": vq.encode(image).latents,
            "quantised": quantised,
            "decode": vq.decode(latent).sample,
            "decode_noquant": vq.decode(latent, force_not_quantize=True).sample,
            "forward": vq(image).sample,
        }
        for part in TOLERANCE.keys() & expected.keys():
            assert (found[part] - expected[part]).abs().max() < TOLERANCE[part], (case, part)


@pytest.mark.shared
@pytest.mark.parametrize("name", NETWORKS)
def test_official_to_diffusers_to_official_is_bit_identical(parity, name):
    official = official_state(parity, name)
    back = vq_to_official(vq_from_official(official))
    assert back.keys() == official.keys()
    for key, tensor in official.items():
        assert torch.equal(back[key], tensor), key


@pytest.mark.shared
@pytest.mark.parametrize("name", ["full_realsr_vq", "full_inpaint_vq"])
def test_every_name_and_shape_of_a_full_size_manifest_is_met_and_written_again(parity, name):
    official = manifest(parity, name)
    vq = vq_from_official(official)
    assert {key: t.shape for key, t in vq_to_official(vq).items()} == {key: t.shape for key, t in official.items()}
    assert (len(official), sum(parameter.numel() for parameter in vq.parameters())) == (205, 55_322_782)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vq_r2", "1, 2, 1, 1 residual blocks"),
        ("full_faceir_vq", "1, 2, 3, 4 residual blocks"),
        ("vq_r3", "attention inside"),
    ],
)
def test_an_autoencoder_that_diffusers_cannot_express_is_refused(parity, name, said):
    with pytest.raises(OfficialError, match=said):
        vq_from_official(manifest(parity, name))


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
