"""Which file goes where: decided, and refused, before anything is read, loaded or computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinashift.imaging.files import WRITE_SUFFIXES, ImageError, find_images, format_of, own_suffix
from retinashift.inference.settings import OutputFormat

logger = logging.getLogger(__name__)

_UNWRITTEN = (".bmp", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".pdf", ".svg", ".eps", ".gz")
"""Suffixes that nobody gives a folder, of files that are not written."""


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


def figure_of(target: Path) -> Path:
    """The picture of a result beside its input."""
    return target.with_name(f"{target.name}.figure.png")


def companions_of(target: Path) -> tuple[Path, ...]:
    """All that may lie beside a result and belongs to it."""
    return sidecar_of(target), figure_of(target), *maps_of(target)


def plan_jobs(
    inputs: Sequence[str | Path],
    out: Path,
    *,
    file_format: OutputFormat = "same",
    overwrite: bool = False,
    resume: bool = False,
    sidecar: bool = False,
    uncertainty: bool = False,
    figure: bool = False,
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    `out` is a folder, or a file name if there is one input file and `out` ends like an image. With `resume`, outputs
    may exist: whether they are what would be written is seen when their input is read. What lies in the folders and is
    no image is counted in a warning.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, results of
            a former run that would be enlarged again, or an `out` that is no folder and no image to be written.
    """
    found = find_images(inputs)
    _tell_what_is_left_out(inputs, {source for source, _ in found})
    one_file = out.suffix.lower() in WRITE_SUFFIXES and not out.is_dir()
    if one_file and len(found) > 1:
        raise ImageError(f"{len(found)} images go into one file {out}; give a folder with -o")
    if one_file and file_format != "same" and format_of(out) != format_of(Path(f"x.{file_format}")):
        raise ImageError(f"-o {out} and --format {file_format} are two formats; leave one of them out")
    if not one_file and (out.is_file() or out.suffix.lower() in _UNWRITTEN):
        raise ImageError(f"{out} is neither a folder nor a file with one of {', '.join(WRITE_SUFFIXES)}; mend -o")
    _refuse_former_results(inputs, [source for source, _ in found], out)
    jobs = [
        Job(source, out if one_file else out / _renamed(source, relative, file_format)) for source, relative in found
    ]

    def beside(target: Path) -> list[Path]:
        kinds = ((sidecar, (sidecar_of(target),)), (uncertainty, maps_of(target)), (figure, (figure_of(target),)))
        return [path for wanted, paths in kinds if wanted for path in paths]

    _refuse_clashes(jobs, {job.target: [job.target, *beside(job.target)] for job in jobs})
    if resume:  # what lies beside a result belongs to it, and what is written before it may lie there without it
        outputs = [sidecar_of(job.target) for job in jobs if sidecar and not job.target.exists()]
    else:
        outputs = [path for job in jobs for path in (job.target, *beside(job.target))]
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


def _refuse_clashes(jobs: list[Job], outputs: dict[Path, list[Path]]) -> None:
    """No two inputs to one output, and no input replaced by its own result. `outputs`: all files of each target."""
    taken: dict[str, Path] = {}
    for job in jobs:
        for path in outputs[job.target]:
            key = str(path).casefold()  # some file systems ignore case
            if key in taken:
                raise ImageError(f"{taken[key]} and {job.source} would both be written to {path}; run them apart")
            taken[key] = job.source
        if job.target.exists() and job.target.resolve() == job.source.resolve():
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")


def _renamed(source: Path, relative: Path, file_format: OutputFormat) -> Path:
    """The output's name: compressed inputs lose their ".gz"; another format changes the suffix.

    A name that does not end like an image, as those of files out of DICOM archives, is kept whole and gets a suffix.
    """
    if relative.suffix.lower() == ".gz":
        relative = relative.with_suffix("")
    if relative.suffix.lower() not in WRITE_SUFFIXES:
        return relative.with_name(relative.name + (own_suffix(source) if file_format == "same" else f".{file_format}"))
    return relative if file_format == "same" else relative.with_suffix(f".{file_format}")


def _tell_what_is_left_out(inputs: Sequence[str | Path], taken: set[Path]) -> None:
    for given in inputs:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            continue
        others = sorted(
            path
            for path in folder.rglob("*")
            if path not in taken and not path.name.startswith(".") and path.is_file()
        )
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            logger.warning("%s%s: left out, not among the images that are read", others[0], more)
