"""The provenance record of a result: what made it, the same for the command, the page and Python."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from retinashift import __version__
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.checkpoints import checkpoint_hash, uncertainty_hash
from retinashift.inference.settings import Sampling

if TYPE_CHECKING:
    from retinashift.inference.pictures import Picture
    from retinashift.inference.pipeline import ResShiftPipeline


def make_record(
    pipeline: ResShiftPipeline, sampling: Sampling, seed: int, page: int | None = None, deidentify: bool = False
) -> Provenance:
    """The record that all results of a run share; each adds its input and its consistency."""
    config, plan = pipeline.config, pipeline.plan(sampling)
    options: dict[str, Any] = {"precision": pipeline.used_precision(sampling.precision)}
    if page is not None:
        options["page"] = page
    if deidentify:
        options["deidentified"] = True
    if sampling.mode == "realistic":
        options["detail_gain"] = config.detail_gain
        if config.detail_transition != "ancestral":
            options["transition"] = config.detail_transition
    if sampling.longest_side is not None:
        options["longest_side"] = sampling.longest_side
    if sampling.turns > 1:
        options["turns"] = sampling.turns
    if sampling.output_uncertainty:
        options["uncertainty"] = uncertainty_hash(pipeline)[:16]
    return Provenance(
        scale=plain_number(config.scale if sampling.scale is None else sampling.scale),
        checkpoint=checkpoint_hash(pipeline),
        steps=plan.steps,
        seed=seed if plan.noise else None,
        input="",
        ensemble=sampling.ensemble_size,
        back_projections=plan.back_projections,
        options=options,
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


def account_of(
    pipeline: ResShiftPipeline,
    sampling: Sampling,
    images: Sequence[Picture],
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> Callable[[int], Provenance]:
    """The records of results whose inputs were no files, by the number of the image.

    `input` is then the hash of the picture's values, as `options` says.
    """
    given = list(generator) if isinstance(generator, Sequence) else [generator] * len(images)
    seeds = [0 if one is None else one.initial_seed() for one in given]

    def account(number: int) -> Provenance:
        record, picture = make_record(pipeline, sampling, seeds[number]), images[number]
        pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
        values = digest(np.ascontiguousarray(pixels).tobytes())
        return replace(record, input=values, options={**record.options, "input": "pixels, not a file"})

    return account
