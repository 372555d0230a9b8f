"""Files in, files out: while one is upscaled, the next are read and the last are written."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retinashift.batch.jobs import BatchOptions, Job, figure_of, maps_of, sidecar_of
from retinashift.batch.photograph import Upscaled, read_source, upscale_source
from retinashift.batch.places import read_place, write_place
from retinashift.batch.record import Outcome, for_input, is_sidecar, make_sidecar, read_record, run_record, same_work
from retinashift.imaging.failures import explain
from retinashift.imaging.files import ImageError, Photograph, remove_stale_temporaries
from retinashift.imaging.provenance import Provenance
from retinashift.inference.pipeline import ResShiftPipeline

T = TypeVar("T")
Progress = Callable[[Job, float], None]
Read = tuple[Photograph, Provenance, bool]


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
        made = _attempt(job, upscale_source, pipeline, job.source, photograph, job.target, record, options, listener)
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
    """The photograph, and whether its result is there and stays; the outcome if everything beside it is there too.

    Raises:
        ImageError: it cannot be read, or another result is there, which may not be replaced.
    """
    data, stays = read_place(job.source, options.max_pixels), False
    if options.resume and job.target.exists():
        former = read_record(job.target)
        if former is not None and same_work(former, for_input(record, data, job.target, options), options):
            stays, beside, sidecar = True, options.beside(job.target), sidecar_of(job.target)
            if sidecar in beside and not sidecar.exists():
                content = job.target.read_bytes()
                write_place(sidecar, make_sidecar(job.source.name, job.target.name, content, former))
            if all(path.exists() for path in beside):
                return Outcome(job, skipped=True, record=former)
        elif not options.overwrite:
            raise ImageError(
                f"{job.target} exists already and is not this input's result with these settings; "
                "give --overwrite to replace it, or another folder with -o"
            )
    return *read_source(pipeline, data, job.source, job.target, record, options), stays


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
    for path in (sidecar_of(job.target), *maps_of(job.target), figure_of(job.target)):
        if path.exists() and (path != sidecar_of(job.target) or is_sidecar(path)):
            path.unlink()
