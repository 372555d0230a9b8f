"""Files in, files out: while one is enlarged, the next are read and the last are written."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict

from retinashift import __version__
from retinashift.batch.jobs import Job, companions_of, figure_of, maps_of, sidecar_of
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.dicom.deidentify import deidentify
from retinashift.imaging.dicom.parametric import encode_parametric_map
from retinashift.imaging.failures import explain
from retinashift.imaging.figures.comparison import compared
from retinashift.imaging.figures.uncertainty import encode_map, overlay
from retinashift.imaging.files import (
    MAX_PIXELS,
    ImageError,
    Photograph,
    decode_image,
    encode_image,
    find_provenance,
    read_bytes,
    replace_file,
)
from retinashift.imaging.formats.png import encode_png
from retinashift.imaging.provenance import Provenance, digest
from retinashift.imaging.targets import check_target
from retinashift.inference.fingerprint import checkpoint_hash
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Mode, Precision, Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchOptions:
    """How files are read, enlarged and written.

    Raises:
        ValueError: `workers` below 1, `uncertainty` 1, or beside an `ensemble_size` or a single step.
    """

    steps: int | None = None
    """Network calls a sample; None is what the mode says."""
    mode: Mode | None = None
    """See `ResShiftPipeline`; None is the checkpoint's default number of steps."""
    seed: int = 0
    """Every file starts from it, so its result does not depend on the files beside it."""
    ensemble_size: int = 1
    uncertainty: int = 0
    """Samples, at least 2, by which it is told in two files beside each result, which is their mean; 0 for none."""
    back_projections: int | None = None
    memory: int | None = None
    """The most bytes to hold, see `ResShiftPipeline`; None is half of what is free."""
    whole_frame: bool = False
    """Let the network work on the dark surround of the eye, too."""
    precision: Precision = "fp32"
    """Of convolutions and products, see `ResShiftPipeline`."""
    page: int | None = None
    """Of files with several, from 1."""
    max_pixels: int = MAX_PIXELS
    deidentify: bool = False
    """Take the person out of DICOM headers; files of other formats are then refused."""
    overwrite: bool = False
    """Replace a result, and remove what lay beside the former one."""
    resume: bool = False
    """Leave a result as it is that this very work has written before; with `overwrite`, replace all others."""
    figure: bool = False
    """Draw each result beside its input, too."""
    sidecar: bool = False
    """Write the account of each result into a JSON file beside it, too."""
    workers: int = 1
    """Threads that read ahead, and as many that write behind. They change the speed and the memory, not the bytes."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; at least 1 is needed")
        self.sampling()

    def sampling(self) -> Sampling:
        """The part that decides the pixels."""
        return Sampling.of_samples(
            mode=self.mode,
            num_inference_steps=self.steps,
            ensemble=self.ensemble_size,
            uncertainty=self.uncertainty,
            back_projections=self.back_projections,
            memory=self.memory,
            precision=self.precision,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is "" if its result is there."""

    job: Job
    error: str = ""
    internal: bool = False
    """The error is a fault of this program, not of the file."""
    skipped: bool = False
    """The result was there already."""
    record: Provenance | None = None
    seconds: float = 0.0
    """From the end of reading to the end of writing."""

    def line(self) -> str:
        """One line of JSON for a log, with the time of now."""
        status = "failed" if self.error else "skipped" if self.skipped else "written"
        values = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "status": status,
            "source": str(self.job.source),
            "target": str(self.job.target),
            "seconds": round(self.seconds, 3),
        }
        if self.error:
            values["error"] = self.error
            if self.internal:
                values["internal"] = True
        if self.record is not None:
            values["provenance"] = asdict(self.record)
        return json.dumps(values) + "\n"


@dataclass(frozen=True)
class _Read:
    """A file that has been read; `photograph` is None if its result is there already."""

    photograph: Photograph | None
    record: Provenance


def upscale_files(
    pipeline: ResShiftPipeline, jobs: Sequence[Job], options: BatchOptions | None = None
) -> Generator[Outcome, None, None]:
    """Run the jobs, and tell the outcome of each, in their order. A file that fails does not stop the others.

    Whatever `Exception` one file causes is its outcome; only what is none, such as KeyboardInterrupt, ends the work.

    Results are written whole or not at all, also when the iterator is closed or the process interrupted: writing that
    has begun is finished, the rest is dropped.
    """
    options = options or BatchOptions()
    record = _record(pipeline, options)
    readers = ThreadPoolExecutor(options.workers, thread_name_prefix="read")
    writers = ThreadPoolExecutor(options.workers, thread_name_prefix="write")
    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[_Read]]] = deque()
    writing: deque[Future[Outcome]] = deque()
    try:
        while waiting or reading or writing:
            while waiting and len(reading) < options.workers:
                job = waiting.popleft()
                reading.append((job, readers.submit(_read, job, record, options)))
            if reading:
                job, future = reading.popleft()
                writing.append(_upscale(pipeline, job, future, options, writers))
            # a result waits for its writer in memory, so there are no more of them than writers
            while writing and (len(writing) > options.workers or not (waiting or reading) or writing[0].done()):
                yield writing.popleft().result()
    finally:
        readers.shutdown(wait=True, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)


def _detail(config: FrozenDict) -> dict[str, float | str]:
    """How the mode "realistic" drew its sample, beside the number of steps."""
    drawn = {"detail_gain": config.detail_gain}
    return drawn if config.detail_transition == "ancestral" else {**drawn, "transition": config.detail_transition}


def _record(pipeline: ResShiftPipeline, options: BatchOptions) -> Provenance:
    """What is the same for all files of a run."""
    config, plan = pipeline.config, pipeline.plan(options.sampling())
    return Provenance(
        scale=config.scale,
        checkpoint=checkpoint_hash(pipeline),
        steps=plan.steps,
        seed=options.seed,
        input="",
        ensemble=options.uncertainty or options.ensemble_size,
        back_projections=plan.back_projections,
        options={
            **({} if options.page is None else {"page": options.page}),
            **({"deidentified": True} if options.deidentify else {}),
            **({"whole_frame": True} if options.whole_frame else {}),
            **(_detail(config) if options.mode == "realistic" else {}),
            **(_uncertainty(pipeline, options.uncertainty) if options.uncertainty else {}),
            **({} if options.precision == "fp32" else {"precision": options.precision}),
        },
        device=pipeline.device.type,
        versions={
            "retinashift": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


def _uncertainty(pipeline: ResShiftPipeline, samples: int) -> dict[str, str | int]:
    """What decides the maps beside the checkpoint's weights."""
    calibration = pipeline.config.calibration
    return {
        "uncertainty": samples,
        "calibration": digest(json.dumps(calibration, sort_keys=True).encode())[:16] if calibration else "none",
    }


def _read(job: Job, record: Provenance, options: BatchOptions) -> _Read:
    data = read_bytes(job.source, options.max_pixels)
    derived = find_provenance(data, str(job.source), options.max_pixels) is not None
    record = replace(record, input=digest(data), input_was_super_resolved=derived)
    if job.target.exists() and (options.resume or not options.overwrite):
        try:
            return _Read(None, _former_result(job, data, record, options))
        except ImageError:
            if not options.overwrite:
                raise
    if derived:
        logger.warning("%s is a result of super-resolution itself", job.source)
    photograph = decode_image(data, str(job.source), options.max_pixels, options.page)
    check_target(job.target, photograph, record.scale)
    if options.deidentify:
        photograph = _deidentified(photograph, job.source)
    return _Read(photograph, record)


def _deidentified(photograph: Photograph, source: Path) -> Photograph:
    if photograph.dicom is None:
        raise ImageError(f"{source} is {photograph.format}; --deidentify is for DICOM, run the others without it")
    try:
        return replace(photograph, dicom=deidentify(photograph.dicom))
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None


def _former_result(job: Job, source: bytes, record: Provenance, options: BatchOptions) -> Provenance:
    """The account of a result that need not be computed again; ImageError if it is not this very work's.

    What is wanted beside it and can be had without the network is made.
    """
    data = job.target.read_bytes()
    former = find_provenance(data, str(job.target)) if options.resume else None
    if former is None or not former.same_work(record):
        raise ImageError(
            f"{job.target} exists already and is not this input's result with these settings; "
            "give --overwrite to replace it, or another folder with -o"
        )
    if options.uncertainty and not all(path.exists() for path in maps_of(job.target)):
        raise ImageError(f"{job.target} is there, but not its uncertainty; give --overwrite to make both again")
    if options.sidecar and not sidecar_of(job.target).exists():
        _write_sidecar(job, data, former)
    if options.figure and not figure_of(job.target).exists():
        lr = decode_image(source, str(job.source), options.max_pixels, options.page)
        sr = decode_image(data, str(job.target), options.max_pixels * former.scale**2)
        _write_figure(job, lr.pixels, sr.pixels, former)
    return former


def _upscale(
    pipeline: ResShiftPipeline, job: Job, future: Future[_Read], options: BatchOptions, writers: ThreadPoolExecutor
) -> Future[Outcome]:
    """Wait for the file, enlarge it, and hand it to a writer."""
    done: Future[Outcome] = Future()
    try:
        read = future.result()
        started = time.perf_counter()
        if read.photograph is None:
            done.set_result(Outcome(job, skipped=True, record=read.record))
            return done
        enlarged = _enlarge(pipeline, read.photograph, options)
        return writers.submit(_write, job, read.photograph, enlarged, read.record, options, started)
    except Exception as error:
        done.set_result(_failed(job, error))
        return done


@dataclass(frozen=True)
class _Enlarged:
    """`pixels` as the photograph's; `consistency` in dB, `sigma` (H, W) or None and the rest: see `SRResult`."""

    pixels: np.ndarray
    consistency: float
    bicubic_share: float
    sigma: np.ndarray | None = None
    calibrated: bool = False


def _enlarge(pipeline: ResShiftPipeline, photograph: Photograph, options: BatchOptions) -> _Enlarged:
    colour, alpha = _split_alpha(photograph)
    result = pipeline(
        colour,
        generator=torch.Generator().manual_seed(options.seed),
        whole_frame=options.whole_frame,
        **vars(options.sampling()),
    )
    pixels = result.images[0]
    if alpha is not None:  # a mask is geometry, not retina: it is interpolated
        pixels = np.dstack([pixels, enlarge(alpha, pipeline.config.scale, "bicubic")])
    sigma = result.sigma[0] if result.sigma else None
    return _Enlarged(pixels, result.consistency[0], result.bicubic_share[0], sigma, result.calibrated)


def _write(
    job: Job, photograph: Photograph, enlarged: _Enlarged, record: Provenance, options: BatchOptions, started: float
) -> Outcome:
    try:
        pixels = enlarged.pixels
        figure = enlarged.consistency
        record = replace(
            record,
            consistency_db=None if figure == float("inf") else round(figure, 2),
            bicubic_share=enlarged.bicubic_share,
        )
        if record.bicubic_share:
            logger.warning("%s: %s, where the network's estimate contradicted it", job.source, record.returned())
        data = encode_image(job.target, pixels, like=photograph, scale=record.scale, provenance=record)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if job.target.exists() and not options.overwrite:
            raise ImageError(f"{job.target} exists already; give --overwrite to replace it")
        if job.target.exists():
            _remove_companions(job.target)
        if enlarged.sigma is not None:  # before the result, which says by its being there that all is done
            _write_maps(job, enlarged, record, photograph, data)
        replace_file(job.target, data)
        if options.sidecar:
            _write_sidecar(job, data, record)
        if options.figure:
            _write_figure(job, photograph.pixels, pixels, record)
    except Exception as error:
        return _failed(job, error)
    return Outcome(job, record=record, seconds=time.perf_counter() - started)


def _write_maps(job: Job, enlarged: _Enlarged, record: Provenance, photograph: Photograph, result: bytes) -> None:
    assert enlarged.sigma is not None
    meaning = "1.645 of it on each side covers 90 % of values" if enlarged.calibrated else "spread of samples, no error"
    account = {"calibrated": enlarged.calibrated, "meaning": meaning, "provenance": json.loads(record.line())}
    caption = f"standard deviation in levels of 255, {record.ensemble} samples"
    caption += ", calibrated" if enlarged.calibrated else ", NOT CALIBRATED"
    numbers, picture, *objects = maps_of(job.target)
    replace_file(numbers, encode_map(enlarged.sigma, account, record.line()))
    for path in objects:
        assert photograph.dicom is not None  # or the result could not have been written as DICOM
        replace_file(path, encode_parametric_map(enlarged.sigma, result, photograph.dicom, meaning))
    drawn = overlay(enlarged.pixels, enlarged.sigma, caption)
    replace_file(picture, encode_png(Photograph(drawn, provenance=record.line())))


def _write_figure(job: Job, lr: np.ndarray, sr: np.ndarray, record: Provenance) -> None:
    drawn = compared(lr, sr, record.scale)
    replace_file(figure_of(job.target), encode_png(Photograph(drawn, provenance=record.line())))


def _remove_companions(target: Path) -> None:
    """What lies beside a result that is about to be replaced would tell of another than the new one."""
    for path in companions_of(target):
        if path.exists() and (path != sidecar_of(target) or _is_sidecar(path)):
            path.unlink()


def _is_sidecar(path: Path) -> bool:
    """Whether it is ours: others, too, keep JSON beside pictures."""
    try:
        return "result_sha256" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return False


def _write_sidecar(job: Job, data: bytes, record: Provenance) -> None:
    values = {
        "source": job.source.name,
        "result": job.target.name,
        "result_sha256": digest(data),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": json.loads(record.line()),
    }
    replace_file(sidecar_of(job.target), (json.dumps(values, indent=2) + "\n").encode())


def _failed(job: Job, error: Exception) -> Outcome:
    """Whatever a decoder, the pipeline, an encoder or a figure raises for one file is that file's failure."""
    failure = explain(error)
    return Outcome(job, failure.text, failure.internal)


def _split_alpha(photograph: Photograph) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour as (H, W) or (H, W, 3), and the alpha channel (H, W) if there is one."""
    pixels = photograph.pixels
    if not photograph.has_alpha:
        return pixels, None
    colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    return np.ascontiguousarray(colour), np.ascontiguousarray(pixels[..., -1])


def append_line(path: Path, line: str) -> None:
    """Append to a log, whole lines only: one write, flushed."""
    with path.open("a", encoding="utf-8") as log:
        log.write(line)
