"""A batch as a person meets it: a bar, a log, and at the end what failed and how faithful the results are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from retinashift.batch.jobs import Job
from retinashift.batch.record import Outcome, append_line
from retinashift.batch.upscale import BatchOptions, upscale_files
from retinashift.cli.opening import internal_errors
from retinashift.imaging.failures import one_line
from retinashift.inference.pipeline import ResShiftPipeline

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it."""


@dataclass
class BatchReport:
    """What a run of `upscale` has to tell."""

    total: int
    seed: int
    scale: int
    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 if every result is there."""
        return INTERRUPTED if self.interrupted else int(any(outcome.error for outcome in self.outcomes))

    def tell(self, out: Path) -> None:
        """Failures by name, counts, the lowest consistency, and what was lost to compression; on standard error."""
        console = Console(stderr=True, soft_wrap=True, highlight=False)

        def say(text: str) -> None:
            console.print(text, markup=False)

        for outcome in self.outcomes:
            if outcome.error:  # a message may name the file by itself
                source = one_line(str(outcome.job.source))
                say(f"failed: {'' if source in outcome.error else f'{source}: '}{outcome.error}")
        if internal := sum(outcome.internal for outcome in self.outcomes):
            say(internal_errors(internal))
        good = [outcome for outcome in self.outcomes if not outcome.error]
        skipped = sum(outcome.skipped for outcome in good)
        there = f", {skipped} were there already" if skipped else ""
        say(f"{len(good) - skipped} of {self.total} written to {out}{there} (seed {self.seed}, x{self.scale})")
        figures = [
            (math.inf if o.record.consistency_db is None else o.record.consistency_db, str(o.job.source))
            for o in good
            if o.record is not None
        ]
        if figures:
            lowest, name = min(figures)
            say(f"Consistency with the input: {lowest:.1f} dB or more (lowest: {name})")
        if any(o.job.target.suffix.lower() in (".jpg", ".jpeg") for o in good):
            say("JPEG results were compressed (quality 95); --format png or tiff loses nothing.")
        if self.interrupted:
            say("Interrupted. No file is half-written; the same command with --resume goes on.")


def run_batch(
    pipeline: ResShiftPipeline, jobs: Sequence[Job], options: BatchOptions, log: Path | None, progress: Progress
) -> BatchReport:
    """Run the jobs behind a bar. Ctrl-C ends it between two files."""
    report = BatchReport(len(jobs), options.seed, pipeline.config.scale)
    task = progress.add_task("Upscaling", total=len(jobs))

    def within(job: Job, share: float) -> None:
        progress.update(task, completed=len(report.outcomes) + share)

    try:
        with closing(upscale_files(pipeline, jobs, options, within)) as work:
            for outcome in work:
                report.outcomes.append(outcome)
                if log is not None:
                    append_line(log, outcome.line())
                progress.update(task, completed=len(report.outcomes))
    except KeyboardInterrupt:
        report.interrupted = True
    return report
