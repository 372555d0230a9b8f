"""LoRA adapters of a denoiser: small matrices beside frozen weights. They are trained by diffusers' `PeftAdapterMixin`.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022).
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The one file of an adapter folder, as diffusers names it; its header holds rank, alpha and the adapted layers."""
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # as peft itself names them
_HEADER = "lora_adapter_metadata"
Network = TypeVar("Network", LightNet, SwinUNet)


def add_lora(net: LightNet | SwinUNet, rank: int, alpha: float, seed: int = 0) -> None:
    """Add adapters of this rank, scaled by alpha / rank, in place, and freeze all else; the output stays the same."""
    config = _peft().LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(net.lora_targets))
    from diffusers.loaders.peft import PeftAdapterMixin  # to import it takes as long as torch

    adapted: Any = net
    adapted.__class__ = type(type(net).__name__, (type(net), PeftAdapterMixin), {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws from the global generator
        adapted.add_adapter(config)


def merged(net: Network) -> Network:
    """A plain network that computes what `net` with its adapters computes; `net` stays as it is."""
    net = copy.deepcopy(net)
    state, config = _peft().get_peft_model_state_dict(net), net.peft_config["default"].to_dict()
    net.unload_lora()
    net.__class__ = type(net).__bases__[0]
    net.requires_grad_(True)
    _add(net, state, config)
    return net


def save_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """Write the adapters alone, as `save_lora_adapter` of diffusers does, which refuses channels-last weights."""
    state = {name: value.detach().cpu().contiguous() for name, value in _peft().get_peft_model_state_dict(net).items()}
    config = json.dumps(net.peft_config["default"].to_dict(), sort_keys=True, default=sorted)  # it has sets
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt", _HEADER: config})


def merge_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """Add saved adapters to the weights that they were trained beside, in place; needs no peft.

    ValueError: there are none in the folder, or they do not fit this network, which then stays as it is.
    """
    path = folder / (WEIGHTS if (folder / WEIGHTS).is_file() else _PEFT_WEIGHTS)
    if not path.is_file():
        raise ValueError(f"{folder} holds no adapter ({WEIGHTS})")
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as contents:
            header = (contents.metadata() or {}).get(_HEADER)
        beside = folder / _PEFT_CONFIG
        _add(net, state, json.loads(header or (beside.read_text(encoding="utf-8") if beside.is_file() else "{}")))
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{folder} does not fit this network: {error}") from None


def _add(net: LightNet | SwinUNet, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Add alpha / r * B A to the weight of each layer, all of them or none."""
    weights = {name.removesuffix(".weight"): weight for name, weight in net.named_parameters()}
    if strange := sorted(set(state) - {f"{layer}.lora_{part}.weight" for layer in weights for part in "AB"}):
        raise ValueError(f"it has no {', '.join(strange[:3])}")
    if not {"r", "lora_alpha"} <= set(config):
        raise ValueError("its rank and alpha are not stated")
    if kinds := [kind for kind in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if config.get(kind)]:
        raise ValueError(f"{', '.join(kinds)} cannot be merged")
    changes = {}
    for layer in (layer for layer in weights if f"{layer}.lora_A.weight" in state):
        a, b = (state[f"{layer}.lora_{part}.weight"].float().flatten(1) for part in "AB")
        changes[layer] = (config["lora_alpha"] / config["r"] * (b @ a)).view_as(weights[layer])  # (out, in, k, k)
        if not changes[layer].isfinite().all():
            raise ValueError(f"{layer} would not be finite")
    for layer, change in changes.items():
        weights[layer].data += change.to(weights[layer])


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ValueError("LoRA needs peft: pip install 'retinashift[lora]'") from None
    return peft
