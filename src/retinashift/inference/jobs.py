"""Which file goes where: decided, and refused, before anything is read, loaded or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinashift.imaging.files import ImageError, find_images

OutputFormat = Literal["same", "png", "tiff"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Job:
    """One file to enlarge and where the result goes."""

    source: Path
    target: Path


def plan_jobs(
    inputs: Sequence[str | Path], out: Path, *, file_format: OutputFormat = "same", overwrite: bool = False
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    `out` is a folder, or a file name if there is one input file and `out` ends like an image.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, or results of
            a former run that would be enlarged again.
    """
    found = find_images(inputs)
    results = out.resolve()
    for folder in (Path(given).expanduser().resolve() for given in inputs if Path(given).expanduser().is_dir()):
        former = [source for source, _ in found if results in source.resolve().parents]
        if former and folder in results.parents:
            raise ImageError(f"{former[0]} lies in the output folder, which is inside the input folder; give one outside")
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


def _renamed(relative: Path, file_format: OutputFormat) -> Path:
    """The output's name: compressed inputs lose their ".gz"; another format changes the suffix."""
    if relative.suffix.lower() == ".gz":
        relative = relative.with_suffix("")
    return relative if file_format == "same" else relative.with_suffix(f".{file_format}")
