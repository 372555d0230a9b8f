"""Files in, files out: plan the outputs, then read, enlarge and write one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from retinashift.imaging.files import ImageError, find_images, read_image, write_image
from retinashift.inference.pipeline import ResShiftPipeline

OutputFormat = Literal["same", "png", "tiff"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Job:
    """One file to enlarge and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is "" if it was written."""

    job: Job
    error: str = ""


def plan_jobs(
    inputs: Sequence[str | Path], out: Path, *, file_format: OutputFormat = "same", overwrite: bool = False
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    `out` is a folder, or a file name if there is one input file and `out` ends like an image.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists, or one that is its own input.
    """
    found = find_images(inputs)
    if len(found) == 1 and out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        jobs = [Job(found[0][0], out)]
    elif out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        raise ImageError(f"{len(found)} images go into one file {out}; give a folder with -o")
    else:
        jobs = [Job(source, out / _renamed(relative, file_format)) for source, relative in found]
    taken: dict[str, Path] = {}
    for job in jobs:
        key = str(job.target).casefold()  # some file systems ignore case
        if key in taken:
            raise ImageError(f"{taken[key]} and {job.source} would both be written to {job.target}; run them apart")
        taken[key] = job.source
        if job.target.exists() and job.target.resolve() == job.source.resolve():
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ImageError(f"{existing[0]}{more} exists already; give --overwrite to replace, or another folder with -o")
    return jobs


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


def _renamed(relative: Path, file_format: OutputFormat) -> Path:
    """The output's name: compressed inputs lose their ".gz"; another format changes the suffix."""
    if relative.suffix.lower() == ".gz":
        relative = relative.with_suffix("")
    return relative if file_format == "same" else relative.with_suffix(f".{file_format}")
