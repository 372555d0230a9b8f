"""Which file goes where, and every refusal of an output, before anything is read, loaded or computed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retinashift.imaging.files import WRITE_SUFFIXES, ImageError, find_images, format_of, own_suffix
from retinashift.inference.settings import OutputFormat

_UNWRITTEN = (".bmp", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".pdf", ".svg", ".eps", ".gz")
"""Suffixes that nobody gives a folder, of files that are not written."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How the address of something that is not a local path begins; one letter is a drive of Windows."""
_NAME_BYTES = 255
"""That a file name holds on common file systems."""


@dataclass(frozen=True)
class Job:
    """One file to upscale, and the file for its result."""

    source: Path
    target: Path


def sidecar_of(target: Path) -> Path:
    """The JSON file beside a result; it keeps the whole name, so that a.png and a.tif have one each."""
    return target.with_name(f"{target.name}.json")


def maps_of(target: Path) -> tuple[Path, ...]:
    """The uncertainty beside a result: the map, its overlay, and beside DICOM a parametric map."""
    kinds = ("tif", "png", "dcm") if target.suffix.lower() == ".dcm" else ("tif", "png")
    return tuple(target.with_name(f"{target.name}.uncertainty.{kind}") for kind in kinds)


def figure_of(target: Path) -> Path:
    """The figure of a result beside its input."""
    return target.with_name(f"{target.name}.figure.png")


def companions_of(target: Path) -> tuple[Path, ...]:
    """All files that may lie beside a result and belong to it."""
    return wanted_beside(target, sidecar=True, uncertainty=True, figure=True)


def wanted_beside(target: Path, sidecar: bool, uncertainty: bool, figure: bool) -> tuple[Path, ...]:
    """The files beside a result that a run with these options writes."""
    kinds = ((sidecar, (sidecar_of(target),)), (uncertainty, maps_of(target)), (figure, (figure_of(target),)))
    return tuple(path for wanted, paths in kinds if wanted for path in paths)


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

    Whether outputs exist is checked here and nowhere else. With `resume` they may: whether they are what would be
    written is seen when their input is read.

    Args:
        inputs: files, folders or patterns.
        out: a folder; or, for one input file, a file name that ends like an image.
        file_format: of the results.
        overwrite, resume, sidecar, uncertainty, figure: options of the run.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, results of
            a former run that would be upscaled again, a name that is too long, or an `out` that is neither a folder
            nor an image file that can be written.
    """
    for given in inputs:
        check_local(given, "an input is a local file, folder or pattern")
    check_local(out, "-o takes a local folder or file name")
    found = find_images(inputs)
    one_file = out.suffix.lower() in WRITE_SUFFIXES and not out.is_dir()
    if one_file and len(found) > 1:
        raise ImageError(f"{len(found)} images cannot be written into one file {out}; give a folder with -o")
    if one_file and file_format != "same" and format_of(out) != format_of(Path(f"x.{file_format}")):
        raise ImageError(f"-o {out} and --format {file_format} name two formats; omit one of them")
    if not one_file and (out.is_file() or out.suffix.lower() in _UNWRITTEN):
        allowed = ", ".join(WRITE_SUFFIXES)
        raise ImageError(f"{out} is neither a folder nor a file with one of {allowed}; choose another name with -o")
    _refuse_former_results(inputs, [source for source, _ in found], out)
    jobs = [
        Job(source, out if one_file else out / result_name(relative, file_format, partial(own_suffix, source)))
        for source, relative in found
    ]
    outputs = {job.target: [job.target, *wanted_beside(job.target, sidecar, uncertainty, figure)] for job in jobs}
    _refuse_clashes(jobs, outputs)
    if resume:  # what lies beside a result belongs to it, and maps are written before it
        planned = [sidecar_of(job.target) for job in jobs if sidecar and not job.target.exists()]
    else:
        planned = [path for job in jobs for path in outputs[job.target]]
    existing = [path for path in planned if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ImageError(f"{existing[0]}{more} exists already; give --overwrite to replace, or another folder with -o")
    return jobs


def check_local(given: str | Path, allowed: str) -> None:
    """Refuse an address such as s3://bucket/x, and "-", which stands for a stream.

    Raises:
        ImageError: it says what is `allowed`.
    """
    text = str(given)
    if text == "-":
        raise ImageError(f"- stands for a stream, which is not supported; {allowed}")
    if _ADDRESS.match(text) and not Path(text).exists():
        raise ImageError(f"{text} is an address; {allowed}")


def _refuse_former_results(inputs: Sequence[str | Path], sources: list[Path], out: Path) -> None:
    """An output folder inside an input folder would be input of the next run."""
    results = out.resolve()
    folders = [path.resolve() for path in (Path(given).expanduser() for given in inputs) if path.is_dir()]
    if any(folder in results.parents for folder in folders):
        for source in sources:
            if results in source.resolve().parents:
                raise ImageError(
                    f"{source} lies in the output folder, inside the input folder; choose a folder outside it with -o"
                )


def _refuse_clashes(jobs: list[Job], outputs: dict[Path, list[Path]]) -> None:
    """No two inputs to one output, no input replaced by its own result, no name too long. `outputs`: by target."""
    taken: dict[str, Path] = {}
    for job in jobs:
        for path in outputs[job.target]:
            key = str(path).casefold()  # some file systems ignore case
            if key in taken:
                raise ImageError(f"{taken[key]} and {job.source} would both be written to {path}; run them separately")
            if len(os.fsencode(path.name)) > _NAME_BYTES:
                size = len(os.fsencode(path.name))
                raise ImageError(f"{path.name}: a name of {size} bytes, at most {_NAME_BYTES} fit; rename {job.source}")
            taken[key] = job.source
        if job.target.exists() and job.target.resolve() == job.source.resolve():
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")


def result_name(relative: Path, file_format: OutputFormat, own: Callable[[], str]) -> Path:
    """The output's name: compressed inputs lose their ".gz", and another format changes the suffix.

    A name that does not end like an image, as in DICOM archives, is kept whole and gets a suffix.

    Args:
        relative: path of the input inside the folder that was given.
        own: the suffix that the input's content calls for.
    """
    if relative.suffix.lower() == ".gz":
        relative = relative.with_suffix("")
    if relative.suffix.lower() not in WRITE_SUFFIXES:
        return relative.with_name(relative.name + (own() if file_format == "same" else f".{file_format}"))
    return relative if file_format == "same" else relative.with_suffix(f".{file_format}")
