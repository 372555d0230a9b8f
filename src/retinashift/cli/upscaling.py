"""The upscale command: a bar, a log, and at the end what failed and how consistent the results are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retinashift.cli.options import (
    Checkpoint,
    Device,
    Overwrite,
    Seed,
    Steps,
    Watch,
    check_log,
    check_outputs,
    open_pipeline,
)
from retinashift.inference.settings import Mode, OutputFormat, Precision, Sampling

if TYPE_CHECKING:
    from retinashift.batch.fleet import Fleet
    from retinashift.batch.jobs import BatchOptions, Job
    from retinashift.batch.record import Outcome
    from retinashift.inference.pipeline import ResShiftPipeline

_JPEG = (".jpg", ".jpeg")
FAILURES = 1000
"""Failures that are printed by name."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it."""


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Files, folders (searched recursively) or patterns, or addresses of them (s3://...)."),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for the results or its address, or a file name for one input.")
    ],
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="faithful: one step, the best estimate, smoother than the truth. realistic: a sample as sharp as a "
            "photograph; its finest detail is plausible, not observed. Default: faithful."
        ),
    ] = None,
    steps: Steps = 0,
    seed: Seed = 0,
    scale: Annotated[
        float | None,
        typer.Option(help="How many times larger the result is: a number from 1 to 4. Default: the checkpoint's, 4."),
    ] = None,
    longest_side: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the longer side of each result, instead of --scale.")
    ] = None,
    turns: Annotated[
        int,
        typer.Option(help="8 averages the photograph's eight turns and flips: about 0.04 dB more, 8 times as long."),
    ] = 1,
    ensemble: Annotated[int, typer.Option(min=1, help="Average N samples.")] = 1,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write a map of the error to expect of each pixel.")
    ] = False,
    consistency: Annotated[
        bool, typer.Option(help="Make results consistent with their input: reduced again, they reproduce it.")
    ] = True,
    memory: Annotated[str, typer.Option(help="Memory limit, such as 2G. Default: half of what is free.")] = "",
    precision: Annotated[
        Precision,
        typer.Option(
            help="Precision of the network. auto: bf16, about twice as fast, where the processor or GPU has arithmetic "
            "for it, else fp32. Results differ by about one grey level."
        ),
    ] = "auto",
    file_format: Annotated[OutputFormat, typer.Option("--format", help="File type of the results.")] = "same",
    quality: Annotated[int, typer.Option(min=0, max=100, help="Quality of JPEG results, 1 to 100; 0 uses 95.")] = 0,
    figure: Annotated[bool, typer.Option("--figure", help="Draw each result beside its input in a PNG file.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist, and the files beside them.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Skip results already written by an identical run; with --overwrite, replace all others.",
        ),
    ] = False,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Write each provenance record into a JSON file beside the result.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(help="Append one JSON line per file: outcome, time, error, provenance.")
    ] = None,
    page: Annotated[
        int, typer.Option(min=0, help="Page (DICOM: frame) of files with several, from 1; 0 refuses such files.")
    ] = 0,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Remove the person from DICOM headers (not from the pixels).")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse inputs of more pixels (width x height) before they are decoded.")
    ] = 100_000_000,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Threads that read ahead and write behind (1 to 16, default 1). With --engine ray, processes, each "
            "with its own checkpoint (default: one for each GPU, or one for every four cores).",
        ),
    ] = 0,
    shard: Annotated[
        str, typer.Option(help="Do one part of the inputs, such as 3/16; a hash of the names decides which files.")
    ] = "",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Compute in this process, or by the workers of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str, typer.Option(help="Ray cluster to use, such as 10.0.0.5:6379; default: start one on this machine.")
    ] = "",
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="With --engine ray; may be a part of one. Default: 1 where there are GPUs."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and failures only.")] = False,
    device: Device = "auto",
    checkpoint: Checkpoint = "",
) -> None:
    """Upscale photographs: PNG, JPEG, TIFF, WebP, PPM, DICOM. Bit depth, names and sub-folders are kept."""
    from retinashift.batch.jobs import BatchOptions, Shard, plan_jobs

    if engine == "local" and (address or gpus_per_worker is not None or workers > 16):
        raise ValueError("--address, --gpus-per-worker and more than 16 --workers need --engine ray")
    sampling = Sampling(
        mode=mode,
        num_inference_steps=steps or None,
        ensemble_size=ensemble,
        output_uncertainty=uncertainty,
        back_projections=None if consistency else 0,
        memory=_bytes(memory) if memory else None,
        precision=precision,
        scale=scale,
        longest_side=longest_side,
        turns=turns,
    )
    options = BatchOptions(
        sampling=sampling, seed=seed, page=page or None, max_pixels=max_pixels, deidentify=deidentify,
        file_format=file_format, quality=quality or None, figure=figure, sidecar=sidecar, overwrite=overwrite,
        resume=resume, workers=1 if engine == "ray" else workers or 1,
    )  # fmt: skip
    jobs = plan_jobs(inputs, out, options, Shard.parse(shard) if shard else None)
    if quality and jobs and not any(job.target.suffix.lower() in _JPEG for job in jobs):
        raise ValueError("--quality is for JPEG results, and there is none; give --format jpeg, or omit --quality")
    check_log(log)
    pipeline = open_pipeline(checkpoint, device)
    fleet, total = None, len(jobs)
    if engine == "ray":
        from retinashift.batch.fleet import Fleet
        from retinashift.batch.record import left_to_do, run_record

        fleet = Fleet(address=address, workers=workers, gpus=gpus_per_worker, checkpoint=checkpoint, device=device)
        if resume and log is not None and log.exists():
            jobs = left_to_do(jobs, log, run_record(pipeline, options), options)
    with Watch(total, quiet) as watch:
        report = run_batch(pipeline, jobs, options, log, watch, fleet, already=total - len(jobs))
    report.tell(out, quiet)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def merge_logs(
    logs: Annotated[list[Path], typer.Argument(help="Files that upscale --log has written.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the table, lines of JSON.")],
    overwrite: Overwrite = False,
) -> None:
    """Join the logs of several machines or runs: one row for each result, its last. Exit code 1 if one failed."""
    from retinashift.batch.record import merge_logs

    for path in logs:
        check_log(path)
    check_outputs(out, overwrite=overwrite)
    counts = merge_logs(logs, out)
    typer.echo(f"{sum(counts.values())} rows in {out}: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    if counts["failed"]:
        raise typer.Exit(1)


def _bytes(memory: str) -> int:
    from retinashift.inference.memory import parse_bytes  # loads torch

    return parse_bytes(memory)


@dataclass
class BatchReport:
    """What a run of `upscale` prints at its end. It keeps no outcomes: a million of them would fill the memory."""

    total: int
    seed: int | None
    """None where no noise was drawn."""
    size: str
    """Of the results, in words."""
    done: int = 0
    skipped: int = 0
    failed: int = 0
    internal: int = 0
    failures: list[str] = field(default_factory=list)
    """The first `FAILURES` of them."""
    lowest: tuple[float, str] | None = None
    """Consistency of the worst result in dB, and its source."""
    lossy: bool = False
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 if every result is there."""
        return INTERRUPTED if self.interrupted else int(self.failed > 0)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        from retinashift.imaging.failures import one_line

        self.done += 1
        self.skipped += outcome.skipped
        source = one_line(str(outcome.job.source))
        if outcome.error:
            self.failed += 1
            self.internal += outcome.internal
            if self.failed <= FAILURES:  # a message may name the file by itself
                self.failures.append(f"{'' if source in outcome.error else f'{source}: '}{outcome.error}")
            return
        self.lossy |= outcome.job.target.suffix.lower() in _JPEG
        if outcome.record is not None:
            consistency = outcome.record.consistency_db
            one = (math.inf if consistency is None else consistency, source)
            self.lowest = min(self.lowest or one, one)

    def tell(self, out: str, quiet: bool = False) -> None:
        """Print failures by name and, unless `quiet`, counts, the lowest consistency and the lossy formats."""
        from rich.console import Console

        from retinashift.cli.options import internal_errors

        console = Console(stderr=True, soft_wrap=True, highlight=False)

        def say(text: str) -> None:
            console.print(text, markup=False)

        for failure in self.failures:
            say(f"failed: {failure}")
        if self.failed > FAILURES:
            say(f"failed: {self.failed - FAILURES} more; --log keeps the reason of each")
        if self.internal:
            say(internal_errors(self.internal))
        if quiet:
            return
        noise = "no noise" if self.seed is None else f"seed {self.seed}"
        there = f", {self.skipped} were there already" if self.skipped else ""
        written = self.done - self.failed - self.skipped
        say(f"{written} of {self.total} written to {out}{there} ({noise}, {self.size})")
        if self.lowest is not None:
            say(f"Consistency with the input: {self.lowest[0]:.1f} dB or more (lowest: {self.lowest[1]})")
        if self.lossy:
            say("JPEG results were compressed; --format png or tiff loses nothing.")
        if self.interrupted:
            say("Interrupted. No file is half-written; the same command with --resume goes on.")


def run_batch(
    pipeline: ResShiftPipeline,
    jobs: Sequence[Job],
    options: BatchOptions,
    log: Path | None,
    watch: Watch,
    fleet: Fleet | None = None,
    already: int = 0,
) -> BatchReport:
    """Run the jobs here or by a fleet, and show how far they are. Ctrl-C ends it between two files.

    Args:
        already: further results of the run that are there.

    Raises:
        OSError: the log cannot be written; it keeps its former lines.
    """
    from retinashift.batch.fleet import upscale_fleet
    from retinashift.batch.record import append_line
    from retinashift.batch.upscale import upscale_files

    seed = options.seed if pipeline.plan(options.sampling).noise else None
    sampling, total = options.sampling, len(jobs) + already
    size = f"x{pipeline.config.scale if sampling.scale is None else sampling.scale:g}"
    size = size if sampling.longest_side is None else f"longest side {sampling.longest_side}"
    report = BatchReport(total, seed, size, done=already, skipped=already)

    def within(job: Job, share: float) -> None:
        watch.tell(report.done + min(share, 0.999), job.source.name)

    run = upscale_files(pipeline, jobs, options, within) if fleet is None else upscale_fleet(jobs, options, fleet)
    try:
        with closing(run) as work:
            for outcome in work:
                report.add(outcome)
                if log is not None:
                    append_line(log, outcome.line())
                watch.tell(report.done, outcome.job.source.name)
    except KeyboardInterrupt:
        report.interrupted = True
    return report
