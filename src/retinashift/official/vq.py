"""The official autoencoder, VQModelTorch of latent diffusion, as our `VQCodec`: other names, the same network.

Encoding does not quantise, decoding does; both are also diffusers' defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.models.vq import VQCodec
from retinashift.official.files import OfficialError, check_names, shape_of

# Parts of names, official and diffusers', replaced from the first to the last in both directions: those of the middle
# stand before the parts of the levels that they contain.
PARTS = (
    (".mid.block_1.", ".mid_block.resnets.0."), (".mid.block_2.", ".mid_block.resnets.1."),
    (".mid.attn_1.", ".mid_block.attentions.0."), (".attn.", ".attentions."), (".norm.", ".group_norm."),
    (".q.", ".to_q."), (".k.", ".to_k."), (".v.", ".to_v."), (".proj_out.", ".to_out.0."), (".block.", ".resnets."),
    (".downsample.conv.", ".downsamplers.0.conv."), (".upsample.conv.", ".upsamplers.0.conv."),
    (".nin_shortcut.", ".conv_shortcut."), (".norm_out.", ".conv_norm_out."),
    ("encoder.down.", "encoder.down_blocks."), ("decoder.up.", "decoder.up_blocks."),
)  # fmt: skip
UP = re.compile(r"(decoder\.up(?:_blocks)?\.)(\d+)(\..+)")  # official levels count from the finest, diffusers' back
ATTENTION = re.compile(r".+\.attentions\.\d+\.to_(?:q|k|v|out\.0)\.weight")  # a 1x1 convolution there, linear here


def vq_from_official(state: Mapping[str, Tensor]) -> VQCodec:
    """The autoencoder with these weights, in their dtype, in evaluation mode. Raises OfficialError."""
    config = vq_config(state)
    with torch.device("meta"):  # only names and shapes: the weights come from the state dict
        vq = VQCodec(**config)
    check_names(state, vq_to_official(vq), "autoencoder")
    levels, own = len(config["block_out_channels"]), dict[str, Tensor]()
    for official, tensor in state.items():
        name = _renamed(official, levels, PARTS)
        own[name] = tensor.flatten(1) if ATTENTION.fullmatch(name) else tensor
    vq.load_state_dict(own, assign=True)
    return vq.eval()


def vq_to_official(vq: VQModel) -> dict[str, Tensor]:
    """The official state dict of an autoencoder, ours or diffusers', as views. OfficialError for another codec."""
    if not isinstance(vq, VQModel):
        raise OfficialError("the official code has only VQCodec, an autoencoder with a codebook, as codec")
    levels, back = len(vq.config.block_out_channels), [(ours, official) for official, ours in PARTS]
    return {
        _renamed(name, levels, back): (tensor[:, :, None, None] if ATTENTION.fullmatch(name) else tensor).detach()
        for name, tensor in vq.state_dict().items()
    }


def vq_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `VQCodec` that these official weights describe. Raises OfficialError."""
    if "quantize.embedding.weight" not in state:
        kind = "a denoiser" if "input_blocks.0.0.weight" in state else "something else"
        raise OfficialError(f"an autoencoder (VQModelTorch) is expected, and the file holds {kind}")
    codes, code_channels = shape_of(state, "quantize.embedding.weight", 2)
    blocks = {tuple(name.split(".")[2:5:2]) for name in state if re.match(r"encoder\.down\.\d+\.block\.\d+\.", name)}
    levels = len({level for level, _ in blocks})
    depths = [sum(int(level) == i for level, _ in blocks) for i in range(levels)]
    widths = [shape_of(state, f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    first_width, in_channels = shape_of(state, "encoder.conv_in.weight", 4)[:2]
    if not widths or first_width != widths[0] or any(width % 32 for width in widths):
        raise OfficialError(
            f"the autoencoder starts with {first_width} channels and has {widths} in its levels; "
            "the first must be the same, and all multiples of 32"
        )
    return {
        "in_channels": in_channels,
        "out_channels": shape_of(state, "decoder.conv_out.weight", 4)[0],
        "block_out_channels": widths,
        "layers_per_block": depths,
        "attention_levels": [level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in state],
        "latent_channels": shape_of(state, "encoder.conv_out.weight", 4)[0],
        "num_vq_embeddings": codes,
        "vq_embed_dim": code_channels,
    }


def _renamed(name: str, levels: int, parts: Iterable[tuple[str, str]]) -> str:
    for before, after in parts:
        name = name.replace(before, after)
    return UP.sub(lambda found: f"{found[1]}{levels - 1 - int(found[2])}{found[3]}", name)
