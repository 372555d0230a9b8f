"""The provenance record of a result, the same for the command, the page and Python, and the hashes in it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from retinashift import __version__
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.settings import Sampling

if TYPE_CHECKING:
    from retinashift.inference.pictures import Picture
    from retinashift.inference.pipeline import ResShiftPipeline

DECISIVE = ("scale", "upsampling", "check_measure", "check_threshold", "bounded", "detail_curves")
"""Values of a checkpoint's configuration that decide results whatever the settings are."""


def checkpoint_hash(pipeline: ResShiftPipeline) -> str:
    """SHA-256, in hexadecimal, of all that decides a result beside input and settings.

    Equal for a folder and a copy of it; another for weights converted to another precision, because results differ.
    The uncertainty head changes no result; `uncertainty_hash` tells it apart.
    """
    configs = {name: pipeline.config[name] for name in DECISIVE}
    parts = {k: part for k, part in pipeline.components.items() if part is not None and k != "uncertainty_head"}
    for name, part in parts.items():  # names with an underscore are diffusers' own: versions, paths
        configs[name] = {k: v for k, v in part.config.items() if not k.startswith("_")}
    return _hash_of(configs, {name: parts[name] for name in ("denoiser", "codec") if name in parts})


def uncertainty_hash(pipeline: ResShiftPipeline) -> str:
    """SHA-256, in hexadecimal, of the uncertainty head and its calibration. ValueError where there is none."""
    if pipeline.uncertainty_head is None:
        raise ValueError("this checkpoint has no uncertainty head")
    return _hash_of(pipeline.config.calibration, {"uncertainty_head": pipeline.uncertainty_head})


def _hash_of(config: Any, networks: dict[str, nn.Module]) -> str:
    total = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, network in networks.items():
        for key, tensor in sorted(network.state_dict().items()):
            total.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def make_record(
    pipeline: ResShiftPipeline, sampling: Sampling, seed: int, page: int | None = None, deidentify: bool = False
) -> Provenance:
    """The record that all results of a run share; each adds its input and what was measured of it."""
    config, plan = pipeline.config, pipeline.plan(sampling)
    realistic = sampling.mode == "realistic"
    said = {
        "precision": pipeline.used_precision(sampling.precision),
        "page": page,
        "deidentified": deidentify or None,
        "detail_gain": config.detail_gain if realistic else None,
        "transition": config.detail_transition if realistic and config.detail_transition != "ancestral" else None,
        "longest_side": sampling.longest_side,
        "turns": sampling.turns if sampling.turns > 1 else None,
        "uncertainty": uncertainty_hash(pipeline)[:16] if sampling.output_uncertainty else None,
    }
    return Provenance(
        scale=plain_number(config.scale if sampling.scale is None else sampling.scale),
        checkpoint=checkpoint_hash(pipeline),
        steps=plan.steps,
        seed=seed if plan.noise else None,
        input="",
        ensemble=sampling.ensemble_size,
        back_projections=plan.back_projections,
        options={name: value for name, value in said.items() if value is not None},
        device=pipeline.device.type,
        versions={
            "retinashift": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


def plain_number(scale: float) -> float:
    """2 for 2.0, so that a record is the same however the number was given."""
    return int(scale) if scale == int(scale) else float(scale)


def record_of_pixels(
    pipeline: ResShiftPipeline,
    sampling: Sampling,
    images: Sequence[Picture],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    number: int,
) -> Provenance:
    """The record of a result whose input was no file: `input` is the hash of the picture's values, as `options` says.

    Args:
        images, generator: as they were given to the pipeline.
        number: of the picture.
    """
    one, picture = generator[number] if isinstance(generator, Sequence) else generator, images[number]
    record = make_record(pipeline, sampling, 0 if one is None else one.initial_seed())
    pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    values = digest(np.ascontiguousarray(pixels).tobytes())
    return replace(record, input=values, options={**record.options, "input": "pixels, not a file"})
