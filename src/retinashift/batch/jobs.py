"""Which file goes where, and every refusal of an output, before anything is read, loaded or computed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from retinashift.batch.places import Place, Remote, find_remote, listing, place_of
from retinashift.imaging.failures import printable
from retinashift.imaging.files import WRITE_SUFFIXES, ImageError, find_images, format_of, own_suffix
from retinashift.inference.settings import OutputFormat

logger = logging.getLogger(__name__)

_UNWRITTEN = (".bmp", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".pdf", ".svg", ".eps", ".gz")
"""Suffixes that nobody gives a folder, of files that are not written."""
_NAME_BYTES = 255
"""That a file name holds on common file systems."""
PathType = TypeVar("PathType", bound=PurePath)
_FEW = 50
"""Files that are looked up one by one at an address; for more, the folder is listed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale, and the file for its result."""

    source: Place
    target: Place


@dataclass(frozen=True)
class Shard:
    """A part of the inputs, for machines that share only the list of them.

    Raises:
        ValueError: `number` outside 1..`count`.
    """

    number: int
    """From 1."""
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self.number}/{self.count}; the first number is 1 to the second, such as 3/16")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that a text such as 3/16 names.

        >>> Shard.parse("3/16")
        Shard(number=3, count=16)
        """
        number, sign, count = text.partition("/")
        if not (sign and number.isdecimal() and count.isdecimal()):
            raise ValueError(f"--shard is {text!r}; the part and how many there are is needed, such as 3/16")
        return cls(int(number), int(count))

    def holds(self, name: str) -> bool:
        """Whether a file belongs to it: a hash of its relative name decides, the same on every machine and day."""
        hashed = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(hashed[:8], "big") % self.count == self.number - 1


def sidecar_of(target: Place) -> Place:
    """The JSON file beside a result; it keeps the whole name, so that a.png and a.tif have one each."""
    return target.with_name(f"{target.name}.json")


def maps_of(target: Place) -> tuple[Place, ...]:
    """The uncertainty beside a result: the map, its overlay, and beside DICOM a parametric map."""
    kinds = ("tif", "png", "dcm") if target.suffix.lower() == ".dcm" else ("tif", "png")
    return tuple(target.with_name(f"{target.name}.uncertainty.{kind}") for kind in kinds)


def figure_of(target: Place) -> Place:
    """The figure of a result beside its input."""
    return target.with_name(f"{target.name}.figure.png")


def companions_of(target: Place) -> tuple[Place, ...]:
    """All files that may lie beside a result and belong to it."""
    return wanted_beside(target, sidecar=True, uncertainty=True, figure=True)


def wanted_beside(target: Place, sidecar: bool, uncertainty: bool, figure: bool) -> tuple[Place, ...]:
    """The files beside a result that a run with these options writes."""
    kinds = ((sidecar, (sidecar_of(target),)), (uncertainty, maps_of(target)), (figure, (figure_of(target),)))
    return tuple(path for wanted, paths in kinds if wanted for path in paths)


def plan_jobs(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    file_format: OutputFormat = "same",
    overwrite: bool = False,
    resume: bool = False,
    sidecar: bool = False,
    uncertainty: bool = False,
    figure: bool = False,
    shard: Shard | None = None,
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    Whether outputs exist is checked here and nowhere else. With `resume` they may: whether they are what would be
    written is seen when their input is read.

    Args:
        inputs: files, folders, patterns, or addresses of them such as s3://bucket/folder.
        out: a folder, or the address of one; or, for one input file, a file name that ends like an image.
        file_format: of the results.
        overwrite, resume, sidecar, uncertainty, figure: options of the run.
        shard: the part of the inputs to return, which may be none; clashes are refused among all inputs.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, results of
            a former run that would be upscaled again, a name that is too long, or an `out` that is neither a folder
            nor an image file that can be written.
        OSError: an address that cannot be listed.
    """
    places = [place_of(given, "an input is a file, folder or pattern, local or at s3://, gs://, az:// or https://")
              for given in inputs]  # fmt: skip
    target = place_of(out, "-o takes a folder or file name, local or at s3://, gs:// or az://")
    if isinstance(target, Remote) and target.scheme.startswith("http"):
        raise ImageError(f"{target} cannot be written to; -o takes a folder, local or at s3://, gs:// or az://")
    one_file = target.suffix.lower() in WRITE_SUFFIXES and not (isinstance(target, Path) and target.is_dir())
    jobs: list[Job] = []
    mine: list[bool] = []
    for source, name, suffix in _find(places):
        own = partial(own_suffix, source) if isinstance(source, Path) else partial(str, suffix)
        below = result_name(PurePosixPath(name), file_format, own).as_posix()
        # an equal name is kept as one string, of which a million are held
        jobs.append(Job(source, target if one_file else target / (name if below == name else below)))
        if shard is not None:
            mine.append(shard.holds(name))
    if one_file and len(jobs) > 1:
        raise ImageError(f"{len(jobs)} images cannot be written into one file {target}; give a folder with -o")
    if one_file and file_format != "same" and format_of(Path(target.name)) != format_of(Path(f"x.{file_format}")):
        raise ImageError(f"-o {target} and --format {file_format} name two formats; omit one of them")
    if not one_file and ((isinstance(target, Path) and target.is_file()) or target.suffix.lower() in _UNWRITTEN):
        allowed = ", ".join(WRITE_SUFFIXES)
        raise ImageError(f"{target} is neither a folder nor a file with one of {allowed}; choose another name with -o")
    _refuse_former_results(places, [job.source for job in jobs], target)
    beside = partial(wanted_beside, sidecar=sidecar, uncertainty=uncertainty, figure=figure)
    _refuse_clashes(jobs, beside)
    if shard is not None:
        jobs = [job for job, held in zip(jobs, mine, strict=True) if held]
    if overwrite:
        return jobs
    exists = lookup([job.target for job in jobs])
    existing: list[Place] = []
    for job in jobs:
        if resume:  # what lies beside a result belongs to it, and maps are written before it
            planned: tuple[Place, ...] = (sidecar_of(job.target),) if sidecar and not exists(job.target) else ()
        else:
            planned = (job.target, *beside(job.target))
        existing += filter(exists, planned)
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ImageError(f"{existing[0]}{more} exists already; give --overwrite to replace, or another folder with -o")
    return jobs


def _find(places: Sequence[Place]) -> Iterator[tuple[Place, str, str]]:
    """Each image once, its path below what was given and, of a remote one, the suffix that its content calls for."""
    local = [place for place in places if isinstance(place, Path)]
    if local or not places:
        for path, relative in find_images(local):
            yield path, relative.as_posix(), ""
    others: list[Place] = []
    seen: set[str] = set()
    remote = [place for place in places if isinstance(place, Remote)]
    for place in remote:
        for file, name, suffix in find_remote(place, others):
            if len(remote) == 1 or str(file) not in seen:
                yield file, name, suffix
            if len(remote) > 1:
                seen.add(str(file))
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        logger.warning("%s%s: left out, not among the images that are read", printable(str(others[0])), more)


def lookup(targets: Sequence[Place]) -> Callable[[Place], bool]:
    """Whether a result exists; for many results below one address, from a listing of it when the first is asked for."""
    if len(targets) <= _FEW or isinstance(targets[0], Path):
        return lambda place: place.exists()
    root = Remote(targets[0].root)
    there: list[set[str]] = []

    def exists(place: Place) -> bool:
        if not there:
            there.append({file.below for file in listing(root)})
        return isinstance(place, Remote) and place.below in there[0]

    return exists


def _refuse_former_results(inputs: Sequence[Place], sources: list[Place], out: Place) -> None:
    """An output folder inside an input folder would be input of the next run."""

    def folders(place: Place) -> Iterator[str]:  # that hold it
        full = place.resolve() if isinstance(place, Path) else PurePosixPath(str(place))
        return map(str, full.parents)

    given = {str(place.expanduser().resolve()) for place in inputs if isinstance(place, Path) and place.is_dir()}
    given |= {str(PurePosixPath(str(place))) for place in inputs if isinstance(place, Remote)}
    if given.isdisjoint(folders(out)):
        return
    results = next(folders(out / "x"))
    for source in sources:
        if results in folders(source):
            raise ImageError(
                f"{source} lies in the output folder, inside the input folder; choose a folder outside it with -o"
            )


def _refuse_clashes(jobs: list[Job], beside: Callable[[Place], tuple[Place, ...]]) -> None:
    """No two inputs to one output, no input replaced by its own result, no name too long. `beside`: by target."""
    taken: set[int] = set()  # hashes: the names of a million results would fill the memory
    for job in jobs:
        for path in (job.target, *beside(job.target)):
            key = str(path).casefold()  # some file systems ignore case
            if hash(key) in taken:
                for other in jobs:
                    same = [p for p in (other.target, *beside(other.target)) if str(p).casefold() == key]
                    if same and other is not job:
                        raise ImageError(
                            f"{other.source} and {job.source} would both be written to {path}; run them separately"
                        )
            size = len(os.fsencode(path.name))
            if size > _NAME_BYTES:
                raise ImageError(f"{path.name}: a name of {size} bytes, at most {_NAME_BYTES} fit; rename {job.source}")
            taken.add(hash(key))
        itself = job.target == job.source
        if isinstance(job.target, Path) and isinstance(job.source, Path) and job.target.exists():
            itself = job.target.resolve() == job.source.resolve()
        if itself:
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")


def result_name(relative: PathType, file_format: OutputFormat, own: Callable[[], str]) -> PathType:
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
