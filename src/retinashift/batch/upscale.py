"""Photographs in, results out: while one file is upscaled, the next are read and the last are written."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from retinashift.batch.jobs import BatchOptions, Job, figure_of, maps_of, sidecar_of
from retinashift.batch.places import Place, read_place, write_place
from retinashift.batch.record import Outcome, for_input, is_sidecar, make_sidecar, read_record, run_record, same_work
from retinashift.imaging.degradation.bicubic import resize
from retinashift.imaging.dicom.derived import deidentify
from retinashift.imaging.dicom.parametric import encode_with_map
from retinashift.imaging.failures import explain
from retinashift.imaging.figures import compared, encode_map, overlay
from retinashift.imaging.files import check_target, decode_image, encode_image, remove_stale_temporaries, with_metadata
from retinashift.imaging.formats.png import encode_png
from retinashift.imaging.photograph import ImageError, Photograph, naming
from retinashift.imaging.provenance import Provenance
from retinashift.inference.advice import measure_condition, quality_of_jpeg
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import plain_number

logger = logging.getLogger(__name__)

MEANING = "1.645 of it on each side covers 90 % of values"
"""What an uncertainty map means; DICOM allows 64 characters."""
CAPTION = "standard deviation in levels of 255"
T = TypeVar("T")
Read = tuple[Photograph, Provenance, bool]


@dataclass(frozen=True)
class Upscaled:
    """A result in memory."""

    job: Job
    """The file that was read, and the file of the result, whose suffix is its format."""
    photograph: Photograph
    """As it was read."""
    pixels: np.ndarray
    """(H, W) or (H, W, C) in the depth and channels of the photograph."""
    record: Provenance
    sigma: np.ndarray | None
    """None, or the standard deviation of each pixel, (H, W) float32 as a share of full scale."""
    options: BatchOptions

    def files(self) -> Iterator[tuple[Place, bytes]]:
        """Path and bytes of each file, encoded one by one in the order in which they must be written.

        The maps come before the result: a result that is there says that its maps are complete. ImageError where the
        format cannot hold the result.
        """
        target, options, record, sigma = self.job.target, self.options, self.record, self.sigma
        name, objects = str(target), list[bytes]()
        kept: dict[str, Any] = {"like": self.photograph, "scale": record.scale, "provenance": record}
        if sigma is not None and target.suffix.lower() == ".dcm":
            result, *objects = encode_with_map(with_metadata(name, self.pixels, **kept), sigma, MEANING)
        else:
            result = encode_image(name, self.pixels, quality=options.quality_for(target), **kept)
        if sigma is not None:
            account = {"meaning": MEANING, "provenance": json.loads(record.line())}
            numbers, picture, *others = maps_of(target)
            yield numbers, encode_map(sigma, account, record.line())
            yield from zip(others, objects, strict=True)
            yield picture, self._png(overlay(self.pixels, sigma, CAPTION))
        yield target, result
        if options.sidecar:
            yield sidecar_of(target), make_sidecar(self.job, result, record)
        if options.figure:
            mode = options.sampling.mode or f"{record.steps} step{'s' if record.steps > 1 else ''}"
            made = mode if record.seed is None else f"{mode}, seed {record.seed}"
            drawn = compared(self.photograph.pixels, self.pixels, caption=made, sigma=sigma)
            yield figure_of(target), self._png(drawn)

    def _png(self, drawn: np.ndarray) -> bytes:
        return encode_png(Photograph(drawn, provenance=self.record.line()))


def upscale_bytes(
    pipeline: ResShiftPipeline, data: bytes, name: str, target: Place, options: BatchOptions,
    progress: Callable[[float], None] | None = None,
) -> Upscaled:  # fmt: skip
    """The result of a photograph's file, in memory; `Upscaled.files` encodes what the command line would write.

    Args:
        data: the file; `name` is what messages call it, and the sidecar without its folder.
        target: name of the result's file; nothing is written there.
        progress: called with the share of the sampling that is done, 0..1; what it raises ends the work.

    Raises:
        ImageError: the file cannot be read, or the target's format cannot hold the result.
        ValueError: settings that the checkpoint does not allow.
    """
    job = Job(Path(name), target)
    photograph, record = read_source(pipeline, data, job, run_record(pipeline, options), options)
    return upscale_source(pipeline, job, photograph, record, options, progress)


def read_source(
    pipeline: ResShiftPipeline, data: bytes, job: Job, record: Provenance, options: BatchOptions
) -> tuple[Photograph, Provenance]:
    """Decode a file, check that the target can hold its result, and warn of one that does not suit the checkpoint.

    Returns the photograph, and the record of its result, made of the run's, without what is measured on it. ImageError
    where it cannot be read, or not as the options say.
    """
    photograph = decode_image(data, str(job.source), options.max_pixels, options.page)
    derived = photograph.record is not None
    if derived:
        logger.warning("%s is a result of super-resolution itself", job.source)
    record = replace(for_input(record, data, job.target, options), input_was_super_resolved=derived)
    if options.sampling.longest_side is not None:
        height, width = photograph.pixels.shape[:2]
        options.sampling.size_of(height, width, int(record.scale))
        record = replace(record, scale=plain_number(options.sampling.longest_side / max(height, width)))
    check_target(str(job.target), photograph, record.scale, options.quality_for(job.target))
    if options.deidentify:
        if photograph.dicom is None:
            kind = photograph.format
            raise ImageError(f"{job.source} is {kind}; --deidentify is for DICOM, run the others without it")
        with naming(job.source):
            photograph = replace(photograph, dicom=deidentify(photograph.dicom))
    condition = measure_condition(photograph.pixels, quality_of_jpeg(data))
    if warning := condition.warning(restores=pipeline.config.check_measure == "burst"):
        logger.warning("%s: %s", job.source, warning)
    return photograph, record


def upscale_source(
    pipeline: ResShiftPipeline, job: Job, photograph: Photograph, record: Provenance, options: BatchOptions,
    progress: Callable[[float], None] | None = None,
) -> Upscaled:  # fmt: skip
    """Sample the result of what `read_source` returns; `progress` as in `upscale_bytes`."""
    pixels, generator = photograph.pixels, torch.Generator().manual_seed(options.seed)
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if photograph.has_alpha else (pixels, None)
    colour = np.ascontiguousarray(colour[..., 0] if colour.shape[2:] == (1,) else colour)
    result = pipeline(colour, generator=generator, progress=progress, **vars(options.sampling))
    upscaled = result.images[0]
    if alpha is not None:  # a mask is geometry, not retina: it is interpolated
        upscaled = np.dstack([upscaled, resize(alpha, (upscaled.shape[0], upscaled.shape[1]), "bicubic")])
    record = result.measured(record)
    if record.bicubic_share:
        logger.warning("%s: %s, where the network's estimate contradicted it", job.source, record.returned())
    return Upscaled(job, photograph, upscaled, record, result.sigma[0] if result.sigma else None, options)


def upscale_files(
    pipeline: ResShiftPipeline, jobs: Sequence[Job], options: BatchOptions | None = None,
    progress: Callable[[Job, float], None] | None = None, record: Provenance | None = None,
) -> Generator[Outcome, None, None]:  # fmt: skip
    """Run the jobs, and yield the outcome of each, in their order. A file that fails does not stop the others.

    Whatever `Exception` one file causes is its outcome; only what is none, such as KeyboardInterrupt, ends the work.
    Results are written whole or not at all, also when the iterator is closed or the process interrupted: writing that
    has begun is finished, the rest is dropped. Temporary files of runs that were killed are removed.

    Args:
        jobs: of `plan_jobs`, which has refused outputs that exist.
        progress: called with a job and the share of its sampling that is done, 0..1.
        record: of `run_record` for these options, if the caller has it.

    Raises:
        ValueError: settings that the checkpoint does not allow.
    """
    options = options or BatchOptions()
    record = record or run_record(pipeline, options)
    for folder in {job.target.parent for job in jobs if isinstance(job.target, Path)}:
        remove_stale_temporaries(folder)
    readers = ThreadPoolExecutor(options.workers, thread_name_prefix="read")
    writers = ThreadPoolExecutor(options.workers, thread_name_prefix="write")

    def upscale(job: Job, reading: Future[Read | Outcome]) -> Future[Outcome]:
        """Wait for the file, upscale it, and hand the result to a writer."""
        read, started = reading.result(), time.perf_counter()
        if isinstance(read, Outcome):
            return writers.submit(lambda: read)
        photograph, record, stays = read
        listener = None if progress is None else partial(progress, job)
        made = _attempt(job, upscale_source, pipeline, job, photograph, record, options, listener)
        return writers.submit(_attempt, job, _write, job, made, stays, options, started)

    try:
        reading = ((job, readers.submit(_attempt, job, _read, pipeline, job, record, options)) for job in jobs)
        # a result waits for its writer in memory, so there are no more of them than writers
        writing: deque[Future[Outcome]] = deque()
        for job, read in _ahead(reading, options.workers):
            writing.append(upscale(job, read))
            while writing and (len(writing) > options.workers or writing[0].done()):
                yield writing.popleft().result()
        yield from (written.result() for written in writing)
    finally:
        readers.shutdown(wait=True, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)


def _ahead(begun: Iterator[T], count: int) -> Iterator[T]:
    """The same, `count` of them begun before the first is used."""
    waiting: deque[T] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _attempt(job: Job, step: Callable[..., T], *arguments: Any) -> T | Outcome:
    """What a step returns; whatever it raises for one file is that file's outcome."""
    try:
        return step(*arguments)
    except Exception as error:
        return Outcome(job, *explain(error))


def _read(pipeline: ResShiftPipeline, job: Job, record: Provenance, options: BatchOptions) -> Read | Outcome:
    """The photograph, and whether its result is there and stays; the outcome if everything beside it is there too."""
    data, stays = read_place(job.source, options.max_pixels), False
    if options.resume and job.target.exists():
        former = read_record(job.target)
        if former is not None and same_work(former, for_input(record, data, job.target, options), options):
            stays, beside, sidecar = True, options.beside(job.target), sidecar_of(job.target)
            if sidecar in beside and not sidecar.exists():
                write_place(sidecar, make_sidecar(job, job.target.read_bytes(), former))
            if all(path.exists() for path in beside):
                return Outcome(job, skipped=True, record=former)
        elif not options.overwrite:
            raise ImageError(
                f"{job.target} exists already and is not this input's result with these settings; "
                "give --overwrite to replace it, or another folder with -o"
            )
    return *read_source(pipeline, data, job, record, options), stays


def _write(job: Job, made: Upscaled | Outcome, stays: bool, options: BatchOptions, started: float) -> Outcome:
    """Write what the run asks for. Where the result stays as it is, only what is missing beside it is written."""
    if isinstance(made, Outcome):
        return made
    for number, (path, data) in enumerate(made.files()):
        if number == 0 and options.overwrite and not stays and job.target.exists():
            _remove_companions(job)
        if not (stays and path.exists()):
            write_place(path, data, overwrite=options.overwrite or path != job.target)
    return Outcome(job, record=made.record, seconds=time.perf_counter() - started)


def _remove_companions(job: Job) -> None:
    """What lies beside a result that is about to be replaced belongs to the former one."""
    sidecar = sidecar_of(job.target)
    for path in (sidecar, *maps_of(job.target), figure_of(job.target)):
        if path.exists() and (path != sidecar or is_sidecar(path)):
            path.unlink()
