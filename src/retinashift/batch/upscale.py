"""Files in, files out: while one is upscaled, the next are read and the last are written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from retinashift.batch.jobs import Job, companions_of, sidecar_of, wanted_beside
from retinashift.batch.photograph import ResultOptions, Source, Upscaled, read_source, upscale_source
from retinashift.batch.places import read_place, write_place
from retinashift.batch.record import Outcome, is_sidecar, make_sidecar
from retinashift.imaging.files import ImageError, find_provenance, remove_stale_temporaries
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import make_record

Progress = Callable[[Job, float], None]


@dataclass(frozen=True, kw_only=True)
class BatchOptions(ResultOptions):
    """How files are read, upscaled and written.

    Raises:
        ValueError: `workers` below 1.
    """

    overwrite: bool = False
    """Replace a result, and remove what lay beside the former one."""
    resume: bool = False
    """Skip results already written by an identical run; with `overwrite`, replace all others."""
    workers: int = 1
    """Threads that read ahead, and as many that write behind. They change the speed and the memory, not the bytes."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; at least 1 is needed")


def upscale_files(
    pipeline: ResShiftPipeline,
    jobs: Sequence[Job],
    options: BatchOptions | None = None,
    progress: Progress | None = None,
    record: Provenance | None = None,
) -> Generator[Outcome, None, None]:
    """Run the jobs, and yield the outcome of each, in their order. A file that fails does not stop the others.

    Whatever `Exception` one file causes is its outcome; only what is none, such as KeyboardInterrupt, ends the work.
    Results are written whole or not at all, also when the iterator is closed or the process interrupted: writing that
    has begun is finished, the rest is dropped. Temporary files of runs that were killed are removed.

    Args:
        pipeline: of a checkpoint.
        jobs: of `plan_jobs`, which has refused outputs that exist.
        options: defaults to `BatchOptions()`.
        progress: called with a job and the share of its sampling that is done, 0..1.
        record: of `make_record` for these options, if the caller has it.

    Raises:
        ValueError: settings that the checkpoint does not allow.
    """
    options = options or BatchOptions()
    record = record or make_record(pipeline, options.sampling, options.seed, options.page, options.deidentify)
    for folder in {job.target.parent for job in jobs if isinstance(job.target, Path)}:
        remove_stale_temporaries(folder)
    readers = ThreadPoolExecutor(options.workers, thread_name_prefix="read")
    writers = ThreadPoolExecutor(options.workers, thread_name_prefix="write")
    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[Source | Outcome]]] = deque()
    writing: deque[Future[Outcome]] = deque()
    try:
        while waiting or reading or writing:
            while waiting and len(reading) < options.workers:
                job = waiting.popleft()
                reading.append((job, readers.submit(_read, job, record, options)))
            if reading:
                job, future = reading.popleft()
                writing.append(_upscale(pipeline, job, future, options, writers, progress))
            # a result waits for its writer in memory, so there are no more of them than writers
            while writing and (len(writing) > options.workers or not (waiting or reading) or writing[0].done()):
                yield writing.popleft().result()
    finally:
        readers.shutdown(wait=True, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)


def _read(job: Job, record: Provenance, options: BatchOptions) -> Source | Outcome:
    """The photograph, or the outcome of a job whose results are there."""
    data = read_place(job.source, options.max_pixels)
    if options.resume and job.target.exists():
        former = _former_record(job, data, record, options)
        beside = wanted_beside(job.target, options.sidecar, options.sampling.output_uncertainty, options.figure)
        if former is not None and all(path.exists() for path in beside):
            return Outcome(job, skipped=True, record=former)
    return read_source(data, job.source, job.target, record, options)


def _former_record(job: Job, source: bytes, record: Provenance, options: BatchOptions) -> Provenance | None:
    """The record of a result that this very work has written; None for another one that may be replaced.

    Raises:
        ImageError: another result, which may not be replaced.
    """
    derived = find_provenance(source, str(job.source)) is not None
    record = replace(record, input=digest(source), input_was_super_resolved=derived)
    if (quality := options.quality_for(job.target)) is not None:
        record = replace(record, options={**record.options, "quality": quality})
    result = job.target.read_bytes()
    try:
        former = find_provenance(result, str(job.target))
    except ImageError:
        former = None
    if former is not None and options.sampling.longest_side is not None:
        record = replace(record, scale=former.scale)  # it follows from the input and the side
    if former is not None and former.same_work(record):
        if options.sidecar and not sidecar_of(job.target).exists():
            write_place(sidecar_of(job.target), make_sidecar(job.source.name, job.target.name, result, former))
        return former
    if options.overwrite:
        return None
    raise ImageError(
        f"{job.target} exists already and is not this input's result with these settings; "
        "give --overwrite to replace it, or another folder with -o"
    )


def _upscale(
    pipeline: ResShiftPipeline,
    job: Job,
    future: Future[Source | Outcome],
    options: BatchOptions,
    writers: ThreadPoolExecutor,
    progress: Progress | None,
) -> Future[Outcome]:
    """Wait for the file, upscale it, and hand the result to a writer."""
    done: Future[Outcome] = Future()
    try:
        read = future.result()
        if isinstance(read, Outcome):
            done.set_result(read)
            return done
        started = time.perf_counter()
        listener = None if progress is None else partial(progress, job)
        upscaled = upscale_source(pipeline, read, job.target, options, listener)
        return writers.submit(_write, job, upscaled, options, started)
    except Exception as error:
        done.set_result(Outcome.failed(job, error))
        return done


def _write(job: Job, upscaled: Upscaled, options: BatchOptions, started: float) -> Outcome:
    """Write what the run asks for. A result of this very work stays as it is, and what is missing beside it is made."""
    try:
        kept = options.resume and job.target.exists() and _holds(job, upscaled)
        for number, (path, data) in enumerate(upscaled.files()):
            if number == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                if job.target.exists() and options.overwrite and not kept:
                    _remove_companions(job)
            if not (kept and path.exists()):
                write_place(path, data, overwrite=options.overwrite or path != job.target)
    except Exception as error:
        return Outcome.failed(job, error)
    return Outcome(job, record=upscaled.record, seconds=time.perf_counter() - started)


def _holds(job: Job, upscaled: Upscaled) -> bool:
    """Whether the result that is there is this one."""
    try:
        former = find_provenance(job.target.read_bytes(), str(job.target))
        return former is not None and former.same_work(upscaled.record)
    except ImageError:
        return False


def _remove_companions(job: Job) -> None:
    """What lies beside a result that is about to be replaced belongs to the former one."""
    for path in companions_of(job.target):
        if path.exists() and (path != sidecar_of(job.target) or is_sidecar(path)):
            path.unlink()
