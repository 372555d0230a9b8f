"""Which file goes where: decided, and refused, before anything is read, loaded or computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinashift.imaging.files import WRITE_SUFFIXES, ImageError, find_images
from retinashift.inference.choices import OutputFormat


@dataclass(frozen=True)
class Job:
    """One file to enlarge and where the result goes."""

    source: Path
    target: Path


def sidecar_of(target: Path) -> Path:
    """The JSON file beside a result; the whole name is kept, so that a.png and a.tif have one each."""
    return target.with_name(f"{target.name}.json")


def maps_of(target: Path) -> tuple[Path, ...]:
    """The uncertainty beside a result: the map, the overlay to look at, and beside DICOM a parametric map."""
    kinds = ("tif", "png", "dcm") if target.suffix.lower() == ".dcm" else ("tif", "png")
    return tuple(target.with_name(f"{target.name}.uncertainty.{kind}") for kind in kinds)


def plan_jobs(
    inputs: Sequence[str | Path],
    out: Path,
    *,
    file_format: OutputFormat = "same",
    overwrite: bool = False,
    resume: bool = False,
    sidecar: bool = False,
    uncertainty: bool = False,
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    `out` is a folder, or a file name if there is one input file and `out` ends like an image. With `resume`, outputs
    may exist: whether they are what would be written is seen when their input is read.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, or results of
            a former run that would be enlarged again.
    """
    found = find_images(inputs)
    one_file = out.suffix.lower() in WRITE_SUFFIXES and not out.is_dir()
    if one_file and len(found) > 1:
        raise ImageError(f"{len(found)} images go into one file {out}; give a folder with -o")
    _refuse_former_results(inputs, [source for source, _ in found], out)
    jobs = [Job(source, out if one_file else out / _renamed(relative, file_format)) for source, relative in found]
    _refuse_clashes(jobs)
    outputs = [job.target for job in jobs if not resume]
    if sidecar:  # one that lies beside its result belongs to it
        outputs += [sidecar_of(job.target) for job in jobs if not (resume and job.target.exists())]
    if uncertainty:
        outputs += [path for job in jobs if not (resume and job.target.exists()) for path in maps_of(job.target)]
    existing = [path for path in outputs if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ImageError(f"{existing[0]}{more} exists already; give --overwrite to replace, or another folder with -o")
    return jobs


def _refuse_former_results(inputs: Sequence[str | Path], sources: list[Path], out: Path) -> None:
    """An output folder inside an input folder would be input of the next run."""
    results = out.resolve()
    folders = [path.resolve() for path in (Path(given).expanduser() for given in inputs) if path.is_dir()]
    if any(folder in results.parents for folder in folders):
        for source in sources:
            if results in source.resolve().parents:
                raise ImageError(f"{source} lies in the output folder, inside the input folder; give -o outside it")


def _refuse_clashes(jobs: list[Job]) -> None:
    """No two inputs to one output, and no input replaced by its own result."""
    taken: dict[str, Path] = {}
    for job in jobs:
        key = str(job.target).casefold()  # some file systems ignore case
        if key in taken:
            raise ImageError(f"{taken[key]} and {job.source} would both be written to {job.target}; run them apart")
        taken[key] = job.source
        if job.target.exists() and job.target.resolve() == job.source.resolve():
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")


def _renamed(relative: Path, file_format: OutputFormat) -> Path:
    """The output's name: compressed inputs lose their ".gz"; another format changes the suffix."""
    if relative.suffix.lower() == ".gz":
        relative = relative.with_suffix("")
    return relative if file_format == "same" else relative.with_suffix(f".{file_format}")
