"""LoRA adapters of a denoiser, by diffusers' `PeftAdapterMixin`: small matrices beside frozen weights.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The one file of an adapter folder, as diffusers names it; its header holds rank, alpha and the adapted layers."""
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # what earlier versions wrote
_HEADER = "lora_adapter_metadata"
Network = TypeVar("Network", LightNet, SwinUNet)


def add_lora(net: LightNet | SwinUNet, rank: int, alpha: float, seed: int = 0) -> None:
    """Add adapters of this rank, scaled by alpha / rank, in place, and freeze all else; the output stays the same.

    Raises:
        ValueError: peft is not installed.
    """
    config = _peft().LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(net.lora_targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws from the global generator
        _adaptable(net).add_adapter(config)


def merged(net: Network) -> Network:
    """A plain network that computes what `net` with its adapters computes; `net` stays as it is."""
    net = copy.deepcopy(net)
    _merge(net)
    return net


def save_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """Write the adapters alone, as `save_lora_adapter` of diffusers does, which refuses channels-last weights."""
    state = {name: value.detach().cpu().contiguous() for name, value in _peft().get_peft_model_state_dict(net).items()}
    config = net.peft_config["default"].to_dict()
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt", _HEADER: json.dumps(config, sort_keys=True)})


def merge_adapter(net: LightNet | SwinUNet, folder: Path) -> None:
    """Merge saved adapters into the network that they were trained beside, in place.

    Raises:
        ValueError: there are none in the folder, they do not fit this network, or peft is not installed.
    """
    peft, former = _peft(), (folder / _PEFT_WEIGHTS).is_file()
    path = folder / (_PEFT_WEIGHTS if former else WEIGHTS)
    if not path.is_file():
        raise ValueError(f"{folder} holds no adapter ({WEIGHTS})")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    known = {name.removesuffix(".weight") for name in net.state_dict()}
    strange = sorted(name for name in state if name.partition(".lora_")[0] not in known)
    if strange:
        raise ValueError(f"{folder} does not fit this network: it has no {', '.join(strange[:3])}")
    try:
        if former:
            config = json.loads((folder / _PEFT_CONFIG).read_text(encoding="utf-8"))
            config = {name: value for name, value in config.items() if name in peft.LoraConfig.__dataclass_fields__}
            _adaptable(net).load_lora_adapter(state, prefix=None, metadata=config)
        else:
            _adaptable(net).load_lora_adapter(folder, weight_name=WEIGHTS, prefix=None)
    except (RuntimeError, OSError, TypeError) as error:  # of another rank than stated, or without its settings
        raise ValueError(f"{folder} does not fit this network: {error}") from None
    _merge(net)


def adapter_in(folder: Path) -> Path | None:
    """The file of the adapter that lies in a folder, or in its `adapter/`, as `save_adapter` writes it; or None."""
    return next((file for file in (folder / WEIGHTS, folder / "adapter" / WEIGHTS) if file.is_file()), None)


def add_adapter(net: LightNet | SwinUNet, path: Path) -> None:
    """Add an adapter, a file as `save_adapter` writes it, to the weights of its layers; needs no peft.

    Raises:
        ValueError: it is damaged, or does not fit this network.
    """
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        with safe_open(path, framework="pt") as contents:
            config = json.loads(contents.metadata()[_HEADER])
        factor, layers = config["lora_alpha"] / config["r"], {name.partition(".lora_")[0] for name in state}
        for layer in sorted(layers):
            weight = net.get_submodule(layer).weight
            change = state[f"{layer}.lora_B.weight"].flatten(1) @ state[f"{layer}.lora_A.weight"].flatten(1)
            weight.data += (factor * change).view_as(weight).to(weight)  # (out, in, k, k)
            if not weight.isfinite().all():
                raise ValueError(f"{layer} is not finite")
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the adapter {path} is damaged or of another network: {error}") from None


def _merge(net: LightNet | SwinUNet) -> None:
    net.fuse_lora()
    net.unload_lora()
    net.__class__ = type(net).__bases__[0]
    net.requires_grad_(True)


def _adaptable(net: LightNet | SwinUNet) -> Any:
    """The network itself, given diffusers' methods for adapters only here: to import them takes as long as torch."""
    _peft()
    from diffusers.loaders.peft import PeftAdapterMixin

    if not isinstance(net, PeftAdapterMixin):
        net.__class__ = type(type(net).__name__, (type(net), PeftAdapterMixin), {})
    return net


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ValueError("LoRA needs peft: pip install 'retinashift[lora]'") from None
    return peft
