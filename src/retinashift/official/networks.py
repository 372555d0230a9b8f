"""The official networks as ours: UNetModelSwin as `SwinUNet`, VQModelTorch as `VQCodec`; sizes follow from the weights.

The denoiser keeps its names. The training size of its latent decides where windows shift and is not among the weights:
it is read from the derived entries of a file, or from a window that was cut down to the features of its level; else it
is that of every release. The autoencoder has other names; encoding does not quantise, decoding does.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.inference.gate import misfits
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec
from retinashift.models.window_attention import SwinBlock, SwinLayer, shifted_window_mask

BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(in_layers|emb_layers|out_layers|skip_connection)?")
"""Way, number and layer of a part; the last group is there in residual blocks."""
TABLE = "relative_position_bias_table"
DERIVED = ("relative_position_index", "attn_mask")  # ends of names of what follows from the sizes, and is not learnt
IMAGE_SIZE = 64  # of every release, for files that do not show it
Tensors = Mapping[str, Tensor]


class OfficialError(ValueError):
    """Official weights that cannot be used, explained in one line."""


def swin_unet_from_official(state: Tensors) -> SwinUNet:
    """The denoiser with these weights, in their dtype and evaluation mode, without a copy; see `swin_unet_config`."""
    config = swin_unet_config(state)
    try:
        with torch.device("meta"):  # only names and shapes: the weights come from the state dict
            net = SwinUNet(**config)
    except ValueError as error:
        raise OfficialError(f"the weights describe no network that can be built: {error}") from error
    learnt = {name: tensor for name, tensor in state.items() if not name.endswith(DERIVED)}
    check_names(learnt, net.state_dict(), "Swin U-Net")
    net.load_state_dict(learnt, assign=True)
    return net.eval()


def swin_unet_to_official(net: SwinUNet) -> dict[str, Tensor]:
    """The official state dict, with the derived entries. OfficialError for another denoiser or mask."""
    if net.config.get("attention_mask") != "official":
        raise OfficialError("the official code has only SwinUNet with attention_mask='official' as denoiser")
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    for name, layer in net.named_modules():
        if not isinstance(layer, SwinLayer):
            continue
        for number, block in enumerate(layer.blocks):
            assert isinstance(block, SwinBlock)
            state[f"{name}.blocks.{number}.attn.relative_position_index"] = relative_position_index(block.window)
            if block.shift:
                side = layer.feature_size
                masked = shifted_window_mask(side, side, block.window, block.shift, "official")
                state[f"{name}.blocks.{number}.attn_mask"] = torch.zeros(masked.shape).masked_fill(masked, -100.0)
    return state


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for every query and key, (n, n) int64, n = window * window."""
    y, x = torch.arange(window**2) // window, torch.arange(window**2) % window
    down, right = y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1
    return down * (2 * window - 1) + right


def swin_unet_config(state: Tensors) -> dict[str, Any]:
    """The arguments of `SwinUNet` that these official weights describe. OfficialError where they describe none."""
    if "input_blocks.0.0.weight" not in state:
        kind = "an autoencoder" if "quantize.embedding.weight" in state else "something else"
        raise OfficialError(f"a denoiser (UNetModelSwin) is expected, and the file holds {kind}")
    depths, updown = _depths(state)
    firsts = _first_stages(depths)
    image_size = seen_image_size(state) or IMAGE_SIZE
    model_channels = shape_of(state, "time_embed.0.weight", 2)[1]
    widths = [shape_of(state, f"{stage}.0.out_layers.3.weight", 4)[0] for stage in firsts]
    if any(width % model_channels for width in widths):
        raise OfficialError(f"the levels have {widths} channels, which are no multiples of {model_channels}")
    halvings = sum(name.startswith("feature_extractor.") and name.endswith(".op.weight") for name in state)
    features = shape_of(state, f"feature_extractor.{3 * halvings - 1}.op.weight", 4)[0] if halvings else 3
    swin = "middle_block.1"
    swin_channels = shape_of(state, f"{swin}.patch_embed.proj.weight", 4)[0]
    before_second = f"input_blocks.{1 + depths[0]}.0.op.weight"  # of a down-sampler
    return {
        "image_size": image_size,
        "in_channels": shape_of(state, "input_blocks.0.0.weight", 4)[1] - features,
        "out_channels": shape_of(state, "out.2.weight", 4)[0],
        "model_channels": model_channels,
        "channel_mult": [width // model_channels for width in widths],
        "num_res_blocks": depths,
        "attention_resolutions": [
            image_size >> level for level, stage in enumerate(firsts) if f"{stage}.1.patch_embed.proj.weight" in state
        ],
        "num_head_channels": swin_channels // shape_of(state, f"{swin}.blocks.0.attn.{TABLE}", 2)[1],
        "swin_depth": len({name.split(".")[3] for name in state if name.startswith(f"{swin}.blocks.")}),
        "swin_embed_dim": swin_channels,
        "window_size": max(window for _, _, window in _windows(state)),
        "mlp_ratio": shape_of(state, f"{swin}.blocks.0.mlp.fc1.weight", 4)[0] / swin_channels,
        "patch_norm": f"{swin}.patch_embed.norm.weight" in state,
        "lq_size": image_size * 2**halvings,
        "use_scale_shift_norm": shape_of(state, f"{firsts[0]}.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        # with residual blocks between the levels, or a single level, this has no effect
        "conv_resample": len(depths) == 1 or updown or before_second in state,
        "resblock_updown": updown,
        "attention_mask": "official",
    }


def seen_image_size(state: Tensors) -> int | None:
    """Side of the latent in training as far as the file shows it, else None; OfficialError if it contradicts itself.

    A window smaller than the others was cut down to the features of its level, and the stored mask of a shifted block
    has an entry for each window of its level.
    """
    windows = _windows(state)
    largest = max(window for _, _, window in windows)
    seen = {window << level for _, level, window in windows if window < largest}
    for stage, level, window in windows:
        if (mask := state.get(f"{stage}.1.blocks.1.attn_mask")) is not None:
            seen.add(math.isqrt(len(mask)) * window << level)
    if len(seen) > 1:
        raise OfficialError(
            f"the file shows different training sizes of the latent, {sorted(seen)}; blocks may be missing"
        )
    return seen.pop() if seen else None


def _windows(state: Tensors) -> list[tuple[str, int, int]]:
    """(stage, level, side of its windows) of the stages with attention on the way down, and of the middle."""
    firsts = _first_stages(_depths(state)[0])
    found = []
    for level, stage in [*enumerate(firsts), (len(firsts) - 1, "middle_block")]:
        name = f"{stage}.1.blocks.0.attn.{TABLE}"
        if name in state or stage == "middle_block":
            found.append((stage, level, (math.isqrt(shape_of(state, name, 2)[0]) + 1) // 2))  # (2w - 1)^2 rows
    return found


def _depths(state: Tensors) -> tuple[list[int], bool]:
    """Residual blocks of each level, finest first; and whether residual blocks also stand between the levels."""
    parts = [found for name in state if (found := BLOCK.match(name))]
    residual = {(part[1], int(part[2]), int(part[3])) for part in parts if part[4]}
    down, up = (1 + max((int(part[2]) for part in parts if part[1] == way), default=0) for way in ("input", "output"))
    if max(down, up) > len(state):
        raise OfficialError("the weights number their blocks with gaps; a denoiser (UNetModelSwin) is expected")
    ends = sorted(number for way, number, layer in residual if way == "output" and layer > 0)
    if ends:  # a second residual block in a stage of the way up is what leads to the next level
        return [after - before - 1 for before, after in pairwise([-1, *ends, up - 1])][::-1], True
    # what is no residual block, and perhaps has no weights, leads to the next level
    ends = [number for number in range(1, down) if ("input", number, 0) not in residual]
    return [after - before - 1 for before, after in pairwise([0, *ends, down])], False


def _first_stages(depths: list[int]) -> list[str]:
    """Name of the first stage of each level on the way down; before all but the first stands a down-sampler."""
    return [f"input_blocks.{1 + sum(depths[:level]) + level}" for level in range(len(depths))]


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


def vq_from_official(state: Tensors) -> VQCodec:
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


def vq_config(state: Tensors) -> dict[str, Any]:
    """The arguments of `VQCodec` that these official weights describe. Raises OfficialError."""
    if "quantize.embedding.weight" not in state:
        kind = "a denoiser" if "input_blocks.0.0.weight" in state else "something else"
        raise OfficialError(f"an autoencoder (VQModelTorch) is expected, and the file holds {kind}")
    codes, code_channels = shape_of(state, "quantize.embedding.weight", 2)
    blocks = {tuple(name.split(".")[2:5:2]) for name in state if re.match(r"encoder\.down\.\d+\.block\.\d+\.", name)}
    depths = Counter(int(level) for level, _ in blocks)
    levels = range(len(depths))
    widths = [shape_of(state, f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in levels]
    first_width, in_channels = shape_of(state, "encoder.conv_in.weight", 4)[:2]
    if not widths or first_width != widths[0] or any(width % 32 for width in widths):
        raise OfficialError(
            f"the autoencoder starts with {first_width} channels and has {widths} in its levels; "
            "the first must be the same, and all multiples of 32"
        )
    return {
        "in_channels": in_channels, "out_channels": shape_of(state, "decoder.conv_out.weight", 4)[0],
        "block_out_channels": widths, "layers_per_block": [depths[level] for level in levels],
        "attention_levels": [level for level in levels if f"encoder.down.{level}.attn.0.q.weight" in state],
        "latent_channels": shape_of(state, "encoder.conv_out.weight", 4)[0],
        "num_vq_embeddings": codes, "vq_embed_dim": code_channels,
    }  # fmt: skip


def _renamed(name: str, levels: int, parts: Iterable[tuple[str, str]]) -> str:
    for before, after in parts:
        name = name.replace(before, after)
    return UP.sub(lambda found: f"{found[1]}{levels - 1 - int(found[2])}{found[3]}", name)


def shape_of(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the architecture follows from; OfficialError if it is missing or not as expected."""
    shape = tuple(state[name].shape) if name in state else None
    if shape is None or len(shape) != dimensions or 0 in shape:
        found = "is missing" if shape is None else f"has the shape {shape}"
        raise OfficialError(f"{name} {found}; the architecture cannot be determined without it")
    return shape


def check_names(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: str) -> None:
    """OfficialError unless both have the same names, with the same shapes, and all found are floats."""
    shapes = {name: (list(tensor.shape), tensor.is_floating_point()) for name, tensor in found.items()}
    if wrong := misfits(shapes, {name: list(tensor.shape) for name, tensor in expected.items()}):
        raise OfficialError(f"the weights do not fit the {network} that their sizes describe; {wrong}")
