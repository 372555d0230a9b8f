"""Which file goes where, and every refusal of an output, before anything is read, loaded or computed."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import compress
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from retinashift.batch.places import Place, Remote, find_remote, listing, place_of
from retinashift.imaging.failures import first_and_more
from retinashift.imaging.files import MAX_PIXELS, WRITE_SUFFIXES, find_images, own_suffix, warn_left_out
from retinashift.imaging.formats.table import format_of_name
from retinashift.imaging.photograph import ImageError
from retinashift.inference.settings import OutputFormat, Sampling

_UNWRITTEN = (".bmp", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".pdf", ".svg", ".eps", ".gz")
"""Suffixes that nobody gives a folder, of files that are not written."""
_NAME_BYTES = 255
"""That a file name holds on common file systems."""
_FEW = 50
"""Files that are looked up one by one at an address; for more, the folder is listed."""
Shard = tuple[int, int]
"""A part of the inputs, from 1, and how many there are, for machines that share only the list of them."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale, and the file for its result."""

    source: Place
    target: Place


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How files are read, upscaled and written. ValueError for `workers` below 1."""

    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    """Every photograph starts from it, so its result does not depend on the others of a run."""
    page: int | None = None
    """Page (DICOM: frame) of files with several, from 1; None refuses such files."""
    max_pixels: int = MAX_PIXELS
    """Limit of width x height of an input."""
    deidentify: bool = False
    """Remove the person from DICOM headers; files of other formats are then refused."""
    file_format: OutputFormat = "same"
    """Of the results."""
    quality: int | None = None
    """Of JPEG results, 1 to 100; None is the encoder's own. Results of other formats lose nothing."""
    figure: bool = False
    """Draw a figure of the input beside the result."""
    sidecar: bool = False
    """Write the provenance record into a JSON file beside the result."""
    overwrite: bool = False
    """Replace a result, and remove what lay beside the former one."""
    resume: bool = False
    """Skip results already written by an identical run; with `overwrite`, replace all others."""
    workers: int = 1
    """Threads that read ahead, and as many that write behind. They change the speed and the memory, not the bytes."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; at least 1 is needed")

    def quality_for(self, target: Place) -> int | None:
        """The quality, where the target's format has one."""
        known = format_of_name(target.name)
        return self.quality if known and known.lossy else None

    def beside(self, target: Place) -> list[Place]:
        """The files beside a result that a run with these options writes."""
        paths = [sidecar_of(target)] if self.sidecar else []
        paths += maps_of(target) if self.sampling.output_uncertainty else []
        paths += [figure_of(target)] if self.figure else []
        return paths


def parse_shard(text: str) -> Shard:
    """Number, from 1, and count of a part of the inputs. ValueError for a text that is no part such as 3/16."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--shard is {text!r}; a part and how many there are is needed, such as 3/16")
    return int(number), int(count)


def in_shard(name: str, shard: Shard) -> bool:
    """Whether a file belongs to it: a hash of its relative name decides, the same on every machine and day."""
    hashed = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(hashed[:8], "big") % shard[1] == shard[0] - 1


def sidecar_of(target: Place) -> Place:
    """The JSON file beside a result; it keeps the whole name, so that a.png and a.tif have one each."""
    return target.with_name(f"{target.name}.json")


def maps_of(target: Place) -> list[Place]:
    """The uncertainty beside a result: the map, its overlay, and beside DICOM a parametric map."""
    kinds = ("tif", "png", "dcm") if target.suffix.lower() == ".dcm" else ("tif", "png")
    return [target.with_name(f"{target.name}.uncertainty.{kind}") for kind in kinds]


def figure_of(target: Place) -> Place:
    """The figure of a result beside its input."""
    return target.with_name(f"{target.name}.figure.png")


def plan_jobs(
    inputs: Sequence[str | Path], out: str | Path, options: BatchOptions | None = None, shard: Shard | None = None
) -> list[Job]:
    """Pair every input with its output, keeping names and sub-folders under `out`.

    Only here is checked whether outputs exist. With `resume` they may; they are compared when their input is read.

    Args:
        inputs: files, folders, patterns, or addresses of them such as s3://bucket/folder.
        out: a folder, or the address of one; or, for one input file, a file name that ends like an image.
        shard: the part of the inputs to return, which may be none; clashes are refused among all inputs.

    Raises:
        ImageError: nothing found, two inputs with one output, an output that exists or is its own input, results of
            a former run that would be upscaled again, a name that is too long, or an `out` that is neither a folder
            nor an image file that can be written.
        OSError: an address that cannot be listed.
    """
    options = options or BatchOptions()
    places = [place_of(given, "an input is a file, folder or pattern, local or at s3://, gs://, az:// or https://")
              for given in inputs]  # fmt: skip
    target = place_of(out, "-o takes a folder or file name, local or at s3://, gs:// or az://")
    if isinstance(target, Remote) and target.scheme.startswith("http"):
        raise ImageError(f"{target} cannot be written to; -o takes a folder, local or at s3://, gs:// or az://")
    one_file = target.suffix.lower() in WRITE_SUFFIXES and not (isinstance(target, Path) and target.is_dir())
    jobs: list[Job] = []
    mine: list[bool] = []
    for source, name, own in _find(places):
        jobs.append(Job(source, target if one_file else target / result_name(name, options.file_format, own)))
        mine.append(shard is None or in_shard(name, shard))
    _check_out(target, one_file, len(jobs), options.file_format)
    _refuse_former_results(places, jobs, target)
    _refuse_clashes(jobs, options)
    jobs = [*compress(jobs, mine)]
    if options.overwrite:
        return jobs
    exists = lookup([job.target for job in jobs])
    existing: list[Place] = []
    for job in jobs:
        if options.resume:  # what lies beside a result belongs to it, and maps are written before it
            planned = [sidecar_of(job.target)] if options.sidecar and not exists(job.target) else []
        else:
            planned = [job.target, *options.beside(job.target)]
        existing += filter(exists, planned)
    if existing:
        found = first_and_more(existing)
        raise ImageError(f"{found} exists already; give --overwrite to replace, or another folder with -o")
    return jobs


def result_name(name: str, file_format: OutputFormat, own: Callable[[], str]) -> str:
    """The output's name: compressed inputs lose their ".gz", and another format changes the suffix.

    A name that does not end like an image, as in DICOM archives, is kept whole and gets a suffix: the format's, or the
    one that the input's content calls for, which `own` returns.
    """
    name = name[:-3] if name.lower().endswith(".gz") else name
    stem, ending = os.path.splitext(name)
    if ending.lower() not in WRITE_SUFFIXES:
        return name + (own() if file_format == "same" else f".{file_format}")
    return name if file_format == "same" else f"{stem}.{file_format}"


def lookup(targets: Sequence[Place]) -> Callable[[Place], bool]:
    """Whether a file exists; for many results below one address, from a listing of it when the first is asked for."""
    if len(targets) <= _FEW or isinstance(targets[0], Path):
        return lambda place: place.exists()
    root = Remote(targets[0].root)

    @cache
    def there() -> np.ndarray:
        return digests(map(str, listing(root)))

    return lambda place: holds(there(), str(place))


def digests(texts: Iterable[str]) -> np.ndarray:
    """A sorted array of 16 bytes for each text: a million names would fill the memory."""
    found = np.fromiter(map(_digest, texts), "S16")
    found.sort()  # in place
    return found


def holds(known: np.ndarray, text: str) -> bool:
    """Whether a text is among those that `digests` was made of."""
    at = int(known.searchsorted(_digest(text)))
    return at < len(known) and bool(known[at] == _digest(text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=15).digest() + b"."  # no zero at the end


def _find(places: Sequence[Place]) -> Iterator[tuple[Place, str, Callable[[], str]]]:
    """Each image once, its path below what was given, and a function for the suffix that its content calls for."""
    local = [place for place in places if isinstance(place, Path)]
    for path, relative in find_images(local) if local or not places else ():
        yield path, relative.as_posix(), partial(own_suffix, path)
    others: list[Place] = []
    for place in places:
        if isinstance(place, Remote):
            yield from find_remote(place, others)
    warn_left_out(others)


def _check_out(out: Place, one_file: bool, count: int, file_format: OutputFormat) -> None:
    """Refuse an output that is neither a folder nor a file of one photograph in the format that is asked for."""
    if not one_file and ((isinstance(out, Path) and out.is_file()) or out.suffix.lower() in _UNWRITTEN):
        known = ", ".join(WRITE_SUFFIXES)
        raise ImageError(f"{out} is neither a folder nor a file with one of {known}; choose another name with -o")
    if one_file and count > 1:
        raise ImageError(f"{count} images cannot be written into one file {out}; give a folder with -o")
    if one_file and file_format != "same" and format_of_name(out.name) != format_of_name(f"x.{file_format}"):
        raise ImageError(f"-o {out} and --format {file_format} name two formats; omit one of them")


def _refuse_former_results(inputs: Sequence[Place], jobs: list[Job], out: Place) -> None:
    """An output folder inside an input folder would be input of the next run."""

    def whole(place: Place) -> PurePath:
        return place.expanduser().resolve() if isinstance(place, Path) else PurePosixPath(str(place))

    results = whole(out)
    if {whole(place) for place in inputs if isinstance(place, Remote) or place.is_dir()}.isdisjoint(results.parents):
        return
    if inside := next((job.source for job in jobs if results in whole(job.source).parents), None):
        raise ImageError(
            f"{inside} lies in the output folder, inside the input folder; choose a folder outside it with -o"
        )


def _refuse_clashes(jobs: list[Job], options: BatchOptions) -> None:
    """No two inputs to one output, no input replaced by its own result, no name too long."""

    def outputs() -> Iterator[tuple[Job, Place, str]]:
        for job in jobs:
            for path in (job.target, *options.beside(job.target)):
                yield job, path, str(path).casefold()  # some file systems ignore case

    found = digests(name for *_, name in outputs())
    if (found[1:] == found[:-1]).any():
        first: dict[str, Job] = {}
        for job, path, name in outputs():
            if (other := first.setdefault(name, job)) is not job:
                both = f"{other.source} and {job.source}"
                raise ImageError(f"{both} would both be written to {path}; run them separately")
    for job, path, _ in outputs():
        if (size := len(os.fsencode(path.name))) > _NAME_BYTES:
            raise ImageError(f"{path.name}: a name of {size} bytes, at most {_NAME_BYTES} fit; rename {job.source}")
    for job in jobs:
        itself = job.target == job.source
        if isinstance(job.target, Path) and isinstance(job.source, Path) and job.target.exists():
            itself = job.target.resolve() == job.source.resolve()
        if itself:
            raise ImageError(f"{job.source} would be replaced by its own result; give another folder with -o")
