"""What the pipeline returns, and the record of what made it, the same for the command, the page and Python."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn

from retinashift import __version__
from retinashift.imaging.files import write_image
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.settings import Sampling

if TYPE_CHECKING:
    from retinashift.inference.pictures import Picture
    from retinashift.inference.pipeline import ResShiftPipeline

DECISIVE = ("scale", "upsampling", "check_measure", "check_threshold", "bounded", "detail_curves")
"""Values of a checkpoint's configuration that decide results whatever the settings are."""


@dataclass
class SRResult(BaseOutput):
    """`images`: one per input, of the size that was asked for, in the form that `output_type` names.

    `consistency`: of each, the PSNR in dB between the input and the image reduced again; inf where they are equal.
    `sigma`: of each, the standard deviation of its values, (H, W) float32 in shares of full scale, where it was asked
    for: in 90 % of values, the truth lies within 1.645 sigma. Where the self-check returned the estimate to bicubic,
    sigma is at least their difference. See `models.uncertainty_head`.
    `bicubic_share`: of each, the share of its field of view, or of a frame without one, that the self-check returned
    to bicubic, 0 to 1; see `self_check`.
    `detail_factor`: of each, what its detail was multiplied by because of the sharpness of the input; see `detail`.
    """

    images: list[Any]
    consistency: list[float]
    bicubic_share: list[float]
    sigma: list[np.ndarray] | None = None
    detail_factor: list[float] = field(default_factory=list)
    account: Callable[[int], Provenance] | None = None
    """The provenance record of the image of a number, but for what `measured` adds."""

    def measured(self, record: Provenance, number: int = 0) -> Provenance:
        """A record with what was measured of the image of a number."""
        decibel = self.consistency[number]
        return replace(
            record,
            consistency_db=None if decibel == float("inf") else round(decibel, 2),
            bicubic_share=self.bicubic_share[number],
            detail_factor=self.detail_factor[number],
        )

    def save(self, path: str | Path, number: int = 0, *, overwrite: bool = False) -> None:
        """Write an image with its provenance record, as the command does; the suffix decides the format.

        Args:
            path: in a folder that exists; PNG and TIFF lose nothing.
            number: of the image, from 0.
            overwrite: replace a file that exists.

        Raises:
            ValueError: the image is not of 8 or 16 bit.
            ImageError: the file exists, its folder does not, or the format cannot hold the image.
        """
        image = self.images[number]
        kind = "uint8" if isinstance(image, Image.Image) else str(image.dtype)
        if kind not in ("uint8", "uint16"):
            raise ValueError(f"image {number} is {kind}; upscale a picture of 8 or 16 bit, as output_type np or pil")
        record = self.measured(self.account(number), number) if self.account else None
        write_image(path, np.asarray(image), overwrite=overwrite, provenance=record)


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
    """SHA-256, in hexadecimal, of the uncertainty head and its calibration."""
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
    versions = {"retinashift": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
    said = {
        "precision": pipeline.used_precision(sampling.precision),
        "page": page,
        "deidentified": deidentify or None,
        "detail_gain": config.detail_gain if realistic else None,
        "transition": config.detail_transition if realistic and config.detail_transition != "ancestral" else None,
        "longest_side": sampling.longest_side,
        "turns": sampling.turns if sampling.turns > 1 else None,
        "strength": sampling.strength if sampling.strength < 1 else None,
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
        versions=versions | {"python": platform.python_version()},
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
    """The record of a result whose input was no file: `input` is the hash of picture `number`, as `options` says."""
    one, picture = generator[number] if isinstance(generator, Sequence) else generator, images[number]
    record = make_record(pipeline, sampling, 0 if one is None else one.initial_seed())
    pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    values = digest(np.ascontiguousarray(pixels).tobytes())
    return replace(record, input=values, options={**record.options, "input": "pixels, not a file"})
