"""Files in, files out: read, enlarge and write one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from retinashift.imaging.files import read_image, write_image
from retinashift.inference.jobs import Job
from retinashift.inference.pipeline import ResShiftPipeline


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is "" if it was written."""

    job: Job
    error: str = ""


def upscale_files(
    pipeline: ResShiftPipeline,
    jobs: Sequence[Job],
    *,
    steps: int | None,
    seed: int,
    ensemble_size: int = 1,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Run the jobs in order. A file that fails does not stop the others.

    Every file starts from the same seed, so its result does not depend on the files beside it.
    """
    for job in jobs:
        try:
            photograph = read_image(job.source)
            result = pipeline(
                photograph.pixels,
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(seed),
                ensemble_size=ensemble_size,
            )
            job.target.parent.mkdir(parents=True, exist_ok=True)
            scale = pipeline.config.scale
            write_image(job.target, result.images[0], like=photograph, scale=scale, overwrite=overwrite)
        except (ValueError, OSError, MemoryError) as error:
            yield Outcome(job, " ".join(str(error).split()) or type(error).__name__)
        else:
            yield Outcome(job)
