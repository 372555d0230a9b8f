"""What the commands share: options, opening a checkpoint, outputs that are refused first, progress and failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.cli.startup import import_diffusers
from retinashift.imaging.failures import explain, printable

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from retinashift.inference.pipeline import ResShiftPipeline

LARGEST_SEED = 2**63 - 1
"""What a `torch.Generator` takes on every device."""

Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint", "-c", help="Checkpoint folder, bundled name (see info) or hf:owner/name; default: x4."
    ),
]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.")]
Limit = Annotated[int, typer.Option(min=0, help="Use the first N photographs; 0 uses all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=LARGEST_SEED, help="Seed of samples; repeatable at the same threads. The default mode draws none."
    ),
]
Steps = Annotated[int, typer.Option(min=0, help="Network calls per sample; 0 uses the checkpoint's default.")]


def open_pipeline(checkpoint: str, device: str) -> ResShiftPipeline:
    """The pipeline of a checkpoint, as `open_checkpoint` takes it, on a device."""
    import_diffusers()
    quiet_libraries()
    from retinashift.inference.checkpoints import open_checkpoint
    from retinashift.inference.memory import choose_device

    chosen = choose_device(device)
    return open_checkpoint(checkpoint).to(chosen)


def quiet_libraries() -> None:
    """Disable the bar that diffusers draws while it loads; the commands draw their own."""
    from diffusers.utils import logging

    logging.disable_progress_bar()


def whole_numbers(text: str, option: str, example: str) -> list[int]:
    """Whole numbers from 0, by commas.

    Raises:
        ValueError: another text, or none.
    """
    if not all(number.strip().isdecimal() for number in text.split(",")):
        raise ValueError(f"{option} is {text!r}; whole numbers from 0, by commas, are needed, such as {example}")
    return [int(number) for number in text.split(",")]


def check_outputs(*paths: Path | None, overwrite: bool, suffix: str = "") -> None:
    """Refuse files that could not be written at the end of a command, before its work begins.

    Args:
        paths: in the order in which they are checked; None is none.
        overwrite: files that exist may be replaced.
        suffix: that all of them must have, in any case.

    Raises:
        FileExistsError: one exists and may not be replaced.
        FileNotFoundError: the folder of one does not exist.
        ValueError: one is an address, a folder, given twice, or has another suffix.
    """
    from retinashift.batch.places import check_local

    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        check_local(path, "an output is a local file")
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it")
        if path.absolute() in (other.absolute() for other in given[:number]):
            raise ValueError(f"{path} is given for two files; give each its own name")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; give --overwrite, or another name")
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder {path.absolute().parent} does not exist; make it, or name another")
        if not path.name.lower().endswith(suffix):
            raise ValueError(f"{path} must end in {suffix}; give another name")


def check_log(path: Path | None) -> None:
    """Refuse a log that lines of JSON cannot be appended to.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: a folder, or a file that holds something else.
    """
    check_outputs(path, overwrite=True)
    if path is None or not path.exists():
        return
    with path.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise ValueError(f"{path} is not a log of JSON lines; name a new file, or one that --log has written")


def progress_bar() -> Progress:
    """A bar on standard error with the number done and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, and the function to call with the number done."""
    with progress_bar() as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


class Watch:
    """Shows how far a run over files is: a bar in a terminal, else a line every `LINE_EVERY` seconds. A context.

    Once its speed is known, a long run says how long it will take.

    Args:
        total: files.
        quiet: show nothing.
        clock: seconds.
    """

    LINE_EVERY, KNOWN_AFTER, LONG = 10.0, 5.0, 60.0

    def __init__(self, total: int, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        self.total, self.quiet, self.clock = total, quiet, clock
        self.bar = None if quiet or not sys.stderr.isatty() else progress_bar()
        self.task = self.bar.add_task("Upscaling", total=total) if self.bar else None
        self.began = self.said = clock()
        self.estimated = False

    def __enter__(self) -> Watch:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def tell(self, done: float, name: str) -> None:
        """How many files are done, and the one that is done in part."""
        if self.quiet:
            return
        now = self.clock()
        left = (now - self.began) * (self.total - done) / done if done else 0.0
        name = printable(name)
        if done and not self.estimated and now - self.began >= self.KNOWN_AFTER:
            self.estimated = True
            if left > self.LONG:
                self._say(f"About {spoken(now - self.began + left)} in all. Ctrl-C stops it; --resume goes on.")
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, description=f"Upscaling {name} ({int(done)} of {self.total})")
        elif done < self.total and now - self.said >= self.LINE_EVERY:
            self.said = now
            self._say(f"{int(done)} of {self.total} done, {name} {done % 1:.0%}, about {spoken(left)} left")

    def _say(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            typer.echo(text, err=True)


def spoken(seconds: float) -> str:
    """A duration in words.

    >>> spoken(7.4), spoken(130), spoken(12345)
    ('7 s', '2 min', '3 h 26 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def table_of(rows: list[list[str]]) -> Table:
    """Rows as a table; the first is the heading."""
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table


class Failures:
    """Files on which a command failed. A context: its end prints a line for each and sets exit code 1."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.internal = 0

    def add(self, name: str, error: Exception) -> None:
        """Note that work on the file of that name ended with an error."""
        failure = explain(error)
        self.internal += failure.internal
        self.lines.append(failure.text if name in failure.text else f"{printable(name)}: {failure.text}")

    def __enter__(self) -> Failures:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for line in self.lines:
            typer.echo(f"failed: {line}", err=True)
        if self.internal:
            typer.echo(internal_errors(self.internal), err=True)
        if self.lines and kind is None:
            raise typer.Exit(1)


def internal_errors(count: int) -> str:
    """The sentence that counts errors of this program."""
    return f"Internal errors of RetinaShift among the failures: {count}. Please report them."
