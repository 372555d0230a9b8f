"""Files in, files out: read, enlarge and write one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from retinashift.imaging.degradation import enlarge
from retinashift.imaging.files import Photograph, read_image, write_image
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
    back_projections: int | None = None,
    memory: int | None = None,
    whole_frame: bool = False,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Run the jobs in order. A file that fails does not stop the others.

    Every file starts from the same seed, so its result does not depend on the files beside it.
    """
    for job in jobs:
        try:
            photograph = read_image(job.source)
            colour, alpha = _split_alpha(photograph)
            result = pipeline(
                colour,
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(seed),
                ensemble_size=ensemble_size,
                back_projections=back_projections,
                memory=memory,
                whole_frame=whole_frame,
            )
            scale = pipeline.config.scale
            pixels = result.images[0]
            if alpha is not None:  # a mask is geometry, not retina: it is interpolated
                pixels = np.dstack([pixels, enlarge(alpha, scale, "bicubic")])
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_image(job.target, pixels, like=photograph, scale=scale, overwrite=overwrite)
        except (ValueError, OSError, MemoryError) as error:
            yield Outcome(job, " ".join(str(error).split()) or type(error).__name__)
        else:
            yield Outcome(job)


def _split_alpha(photograph: Photograph) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour as (H, W) or (H, W, 3), and the alpha channel (H, W) if there is one."""
    pixels = photograph.pixels
    if not photograph.has_alpha:
        return pixels, None
    colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    return np.ascontiguousarray(colour), np.ascontiguousarray(pixels[..., -1])
