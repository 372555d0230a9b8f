"""Which checkpoint a name means, and the hash that tells checkpoints apart."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline

logger = logging.getLogger(__name__)

DEFAULT = "x4"
FORMER_NAMES = {"x4_realistic": "x4_restore"}
HUB = "hf:"
"""Prefix of a name on the hub; a folder that is missing is never looked up there."""


def shipped_names() -> list[str]:
    """The bundled checkpoints, sorted."""
    return sorted(entry.name for entry in (files("retinashift") / "weights").iterdir() if entry.is_dir())


def open_checkpoint(name: str = "", **kwargs: Any) -> ResShiftPipeline:
    """The pipeline of a checkpoint.

    Args:
        name: a folder, which goes before a bundled checkpoint of that name; a bundled checkpoint, "" or "shipped" for
            the default `x4`; or hf:owner/name, which is downloaded from the Hugging Face hub.
        kwargs: diffusers' (torch_dtype, revision, ...).

    Raises:
        CheckpointError: it cannot be found or used.
    """
    if name.startswith(HUB):
        return ResShiftPipeline.from_pretrained(name.removeprefix(HUB), **kwargs)
    if name in FORMER_NAMES and not Path(name).exists():
        logger.warning("the checkpoint %s is now called %s", name, FORMER_NAMES[name])
        name = FORMER_NAMES[name]
    if name in ("", "shipped"):
        return ResShiftPipeline.from_shipped(DEFAULT, **kwargs)
    if Path(name).expanduser().exists():
        return ResShiftPipeline.from_pretrained(name, **kwargs)
    if name in shipped_names():
        return ResShiftPipeline.from_shipped(name, **kwargs)
    bundled = ", ".join(shipped_names())
    raise CheckpointError(
        f"no checkpoint folder at {name}; give a folder, a bundled name ({bundled}) or {HUB}owner/name"
    )


def checkpoint_hash(pipeline: ResShiftPipeline) -> str:
    """SHA-256, in hexadecimal, of all that decides a result beside input and settings.

    Equal for a folder and a copy of it; another for weights converted to another precision, because results differ.
    The uncertainty head changes no result; `uncertainty_hash` tells it apart.
    """
    total = hashlib.sha256()
    own = ("scale", "upsampling", "check_measure", "check_threshold", "bounded", "detail_curves")
    configs = {name: pipeline.config[name] for name in own}
    parts = {k: part for k, part in pipeline.components.items() if part is not None and k != "uncertainty_head"}
    for name, part in parts.items():  # names with an underscore are diffusers' own: versions, paths
        configs[name] = {k: v for k, v in part.config.items() if not k.startswith("_")}
    total.update(json.dumps(configs, sort_keys=True, default=str).encode())
    for name in ("denoiser", "codec"):
        if name in parts:
            _add_weights(total, name, parts[name])
    return total.hexdigest()


def uncertainty_hash(pipeline: ResShiftPipeline) -> str:
    """SHA-256, in hexadecimal, of the uncertainty head and its calibration. ValueError where there is none."""
    if pipeline.uncertainty_head is None:
        raise ValueError("this checkpoint has no uncertainty head")
    total = hashlib.sha256(json.dumps(pipeline.config.calibration, sort_keys=True).encode())
    _add_weights(total, "uncertainty_head", pipeline.uncertainty_head)
    return total.hexdigest()


def _add_weights(total: hashlib._Hash, name: str, part: nn.Module) -> None:
    for key, tensor in sorted(part.state_dict().items()):
        total.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
