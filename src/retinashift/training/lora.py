"""LoRA fine-tuning of a denoiser through peft: small matrices beside frozen weights, merged when it is done.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet

SWIN_TARGETS = ["qkv", "proj", "fc1", "fc2"]  # the linear maps of every attention layer
LIGHT_TARGETS = ["conv1", "conv2"]  # the convolutions of every block
WEIGHTS = "adapter_model.safetensors"  # peft's names of its files
Network = TypeVar("Network", LightNet, SwinUNet)


def add_lora(net: LightNet | SwinUNet, rank: int, alpha: float, seed: int = 0) -> None:
    """Put adapters of this rank, scaled by alpha / rank, into `net` and freeze all else; its output stays."""
    peft = _peft()
    targets = LIGHT_TARGETS if isinstance(net, LightNet) else SWIN_TARGETS
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws from the global generator
        peft.inject_adapter_in_model(config, net)


def merged(net: Network) -> Network:
    """A plain network, which computes what `net` with its adapters computes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
    net.__dict__.pop("peft_config", None)
    return net.requires_grad_(True)


def save_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """The adapters alone, in peft's form, into an existing folder."""
    state = _peft().get_peft_model_state_dict(net)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    net.peft_config["default"].save_pretrained(folder)


def load_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """Put saved adapters into the network that they were trained beside."""
    peft = _peft()
    peft.inject_adapter_in_model(peft.LoraConfig.from_pretrained(folder), net)
    missing = peft.set_peft_model_state_dict(net, load_file(folder / WEIGHTS))
    if missing.unexpected_keys:
        raise ValueError(f"{folder} does not fit this network: it has no {', '.join(missing.unexpected_keys[:3])}")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ValueError("LoRA needs peft: pip install 'retinashift[lora]'") from None
    return peft
