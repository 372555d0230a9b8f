"""The upscale command: a bar, a log, and at the end what failed and how consistent the results are."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from retinashift.cli import shared
from retinashift.cli.shared import Checkpoint, Device, Display, Failures, Overwrite, Quiet, Seed, Steps
from retinashift.imaging.failures import Failure, one_line
from retinashift.inference.settings import Mode, OutputFormat, Precision, Sampling

if TYPE_CHECKING:
    from retinashift.batch.jobs import Job
    from retinashift.batch.record import Outcome

INTERRUPTED = 130  # exit code after Ctrl-C, as shells count it
KNOWN_AFTER, LONG = 5.0, 60.0
"""Seconds until the speed of a run is known, and of a run that says how long it will take."""


def upscale(
    inputs: Annotated[list[str], Argument(help="Files, folders (recursive), patterns, or addresses (s3://...).")],
    out: Annotated[str, Option("--out", "-o", help="Folder for the results or its address, or a file for one input.")],
    mode: Annotated[
        Mode | None,
        Option(
            help="faithful: one step, the best estimate, smoother than the truth. realistic: a sample as sharp as a "
            "photograph; its finest detail is plausible, not observed. Default: faithful."
        ),
    ] = None,
    steps: Steps = 0,
    seed: Seed = 0,
    scale: Annotated[float | None, Option(help="Times larger, from 1 to 4. Default: the checkpoint's.")] = None,
    longest_side: Annotated[int | None, Option(min=1, help="Pixels of the longer side, instead of --scale.")] = None,
    turns: Annotated[int, Option(help="8 averages eight turns and flips: about 0.04 dB more, 8 times as long.")] = 1,
    strength: Annotated[float, Option(min=0, max=1, help="Of x4_restore: from 0, x4's result, to 1, its own.")] = 1.0,
    ensemble: Annotated[int, Option(min=1, help="Average N samples.")] = 1,
    uncertainty: Annotated[bool, Option("--uncertainty", help="Also write a map of the expected error.")] = False,
    consistency: Annotated[bool, Option(help="Make results, reduced again, reproduce their input.")] = True,
    memory: Annotated[str, Option(help="Memory limit, such as 2G. Default: half of what is free.")] = "",
    precision: Annotated[Precision, Option(help="auto: bf16 if the device has it, twice as fast, else fp32.")] = "auto",
    file_format: Annotated[OutputFormat, Option("--format", help="File type of the results.")] = "same",
    quality: Annotated[int, Option(min=0, max=100, help="Quality of JPEG results, 1 to 100; 0 uses 95.")] = 0,
    figure: Annotated[bool, Option("--figure", help="Draw each result beside its input in a PNG file.")] = False,
    overwrite: Overwrite = False,
    resume: Annotated[bool, Option("--resume", help="Skip results of identical runs, also with --overwrite.")] = False,
    sidecar: Annotated[bool, Option("--sidecar", help="Also write each provenance record as JSON.")] = False,
    log: Annotated[Path | None, Option(help="Append one JSON line per file: outcome, time, error, provenance.")] = None,
    page: Annotated[int, Option(min=0, help="Page (DICOM: frame) of files with several, from 1; 0 refuses them.")] = 0,
    deidentify: Annotated[bool, Option("--deidentify", help="Remove the person from DICOM headers only.")] = False,
    max_pixels: Annotated[int, Option(min=1, help="Refuse inputs of more pixels, width x height.")] = 100_000_000,
    workers: Annotated[int, Option(min=0, help="1 to 16 threads to read and write (default 1); ray: processes.")] = 0,
    shard: Annotated[str, Option(help="Do one part of the inputs, such as 3/16, decided by a hash of names.")] = "",
    engine: Annotated[Literal["local", "ray"], Option(help="Compute in this process, or on a Ray cluster.")] = "local",
    address: Annotated[str, Option(help="Ray cluster, such as 10.0.0.5:6379. Default: one on this machine.")] = "",
    gpus_per_worker: Annotated[
        float | None, Option(min=0, help="With --engine ray; may be a part of one. Default: 1 where there are GPUs.")
    ] = None,
    quiet: Quiet = False,
    device: Device = "auto",
    checkpoint: Checkpoint = "",
) -> None:
    """Upscale photographs: PNG, JPEG, TIFF, WebP, PPM, DICOM. Bit depth, names and sub-folders are kept."""
    from retinashift.batch.jobs import BatchOptions, parse_shard, plan_jobs

    if engine == "local" and (address or gpus_per_worker is not None or workers > 16):
        raise ValueError("--address, --gpus-per-worker and more than 16 --workers need --engine ray")
    limit = None
    if memory:
        from retinashift.inference.memory import parse_bytes  # loads torch

        limit = parse_bytes(memory)
    sampling = Sampling(
        mode=mode, num_inference_steps=steps or None, ensemble_size=ensemble, output_uncertainty=uncertainty,
        back_projections=None if consistency else 0, memory=limit,
        precision=precision, scale=scale, longest_side=longest_side, turns=turns, strength=strength,
    )  # fmt: skip
    options = BatchOptions(
        sampling=sampling, seed=seed, page=page or None, max_pixels=max_pixels, deidentify=deidentify,
        file_format=file_format, quality=quality or None, figure=figure, sidecar=sidecar, overwrite=overwrite,
        resume=resume, workers=1 if engine == "ray" else workers or 1,
    )  # fmt: skip
    jobs = plan_jobs(inputs, out, options, parse_shard(shard) if shard else None)
    lossy = any(job.target.suffix.lower() in (".jpg", ".jpeg") for job in jobs)
    if quality and jobs and not lossy:
        raise ValueError("--quality is for JPEG results, and there is none; give --format jpeg, or omit --quality")
    check_log(log)
    pipeline = shared.open_pipeline(checkpoint, device)
    from retinashift.batch.fleet import Fleet, upscale_fleet
    from retinashift.batch.record import left_to_do, run_record
    from retinashift.batch.upscale import upscale_files

    total = len(jobs)
    if engine == "ray" and resume and log is not None and log.exists():
        jobs = left_to_do(jobs, log, run_record(pipeline, options), options)
    there = total - len(jobs)
    with Display(quiet) as display:
        report = BatchReport(display, total, done=there, skipped=there, lossy=lossy)
        if engine == "ray":
            fleet = Fleet(address=address, workers=workers, gpus=gpus_per_worker, checkpoint=checkpoint, device=device)
            report.follow(upscale_fleet(jobs, options, fleet), log)
        else:
            report.follow(upscale_files(pipeline, jobs, options, report.tell), log)
    report.failures.tell()
    noise = f"seed {seed}" if pipeline.plan(sampling).noise else "no noise"
    size = f"longest side {longest_side}" if longest_side else f"x{scale or pipeline.config.scale:g}"
    for line in () if quiet else report.lines(out, f"{noise}, {size}"):
        typer.echo(line, err=True)
    if report.interrupted or report.failures.count:
        raise typer.Exit(INTERRUPTED if report.interrupted else 1)


def merge_logs(
    logs: Annotated[list[Path], Argument(help="Files that upscale --log has written.")],
    out: Annotated[Path, Option("--out", "-o", help="File for the table, lines of JSON.")],
    overwrite: Overwrite = False,
) -> None:
    """Join the logs of several machines or runs: one row for each result, its last. Exit code 1 if one failed."""
    from retinashift.batch.record import merge_logs

    for path in logs:
        check_log(path)
    shared.check_outputs(out, overwrite=overwrite)
    counts = merge_logs(logs, out)
    typer.echo(f"{sum(counts.values())} rows in {out}: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    if counts["failed"]:
        raise typer.Exit(1)


def check_log(path: Path | None) -> None:
    """Refuse a log that lines of JSON cannot be appended to: in no folder, a folder, or of other content."""
    shared.check_outputs(path, overwrite=True)
    if path is None or not path.exists():
        return
    with path.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise ValueError(f"{path} is not a log of JSON lines; name a new file, or one that --log has written")


@dataclass
class BatchReport:
    """How far a run of `upscale` is, and what it prints at its end. It keeps no outcomes: a million fill the memory."""

    display: Display
    total: int
    done: int = 0  # results that are there or failed, counted from those that were there before
    skipped: int = 0
    failures: Failures = field(default_factory=Failures)
    lowest: tuple[float, str] | None = None  # consistency of the worst result in dB, and its source
    lossy: bool = False  # some results are JPEG
    interrupted: bool = False
    announced: bool = False

    def follow(self, outcomes: Generator[Outcome], log: Path | None) -> None:
        """Count, log and show the outcomes as they come; Ctrl-C ends the work between two files."""
        from retinashift.batch.record import append_line

        try:
            with closing(outcomes):
                for outcome in outcomes:
                    self.add(outcome)
                    if log is not None:
                        append_line(log, outcome.line())
                    self.tell(outcome.job, 0)
        except KeyboardInterrupt:
            self.interrupted = True

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        source, record = str(outcome.job.source), outcome.record
        self.done += 1
        self.skipped += outcome.skipped
        if outcome.error:
            self.failures.add(source, Failure(outcome.error, outcome.internal))
        elif record is not None:
            one = (math.inf if record.consistency_db is None else record.consistency_db, source)
            self.lowest = min(self.lowest or one, one)

    def tell(self, job: Job, share: float) -> None:
        """Show how far the work is, by the job in progress and the share of it that is done."""
        done, spent = self.done + min(share, 0.999), self.display.clock() - self.display.began
        if done and spent >= KNOWN_AFTER and not self.announced:
            self.announced, whole = True, spent * self.total / done
            if whole - spent > LONG:
                self.display.say(f"About {shared.spoken(whole)} in all. Ctrl-C stops it; --resume goes on.")
        part = f" {share:.0%}" if share else ""
        self.display.at(done / self.total, f"Upscaling {job.source.name}{part} ({self.done} of {self.total} done)")

    def lines(self, out: str, made: str) -> Iterator[str]:
        """How many results were written, where and how, how consistent the worst is, and what was lost."""
        there = f", {self.skipped} were there already" if self.skipped else ""
        yield f"{self.done - self.failures.count - self.skipped} of {self.total} written to {out}{there} ({made})"
        if self.lowest:
            yield f"Consistency with the input: {self.lowest[0]:.1f} dB or more (lowest: {one_line(self.lowest[1])})"
        if self.lossy and self.done > self.failures.count:
            yield "JPEG results were compressed; --format png or tiff loses nothing."
        if self.interrupted:
            yield "Interrupted. No file is half-written; the same command with --resume goes on."
