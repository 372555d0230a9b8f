"""What the commands share: options, opening a checkpoint, refusing outputs first, and showing how a command goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer import Option

from retinashift.imaging.failures import Failure, explain, one_line
from retinashift.inference import import_diffusers

if TYPE_CHECKING:
    from retinashift.inference.pipeline import ResShiftPipeline

T = TypeVar("T")

Checkpoint = Annotated[str, Option("--checkpoint", "-c", help="Folder, name (see info) or hf:owner/name; default: x4.")]
Device = Annotated[str, Option(help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.")]
Limit = Annotated[int, Option(min=0, help="Use the first N photographs; 0 uses all.")]
Json = Annotated[bool, Option("--json", help="Print lines of JSON instead.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace output files that exist.")]
Quiet = Annotated[bool, Option("--quiet", help="Print warnings, failures and final tables only.")]
Seed = Annotated[int, Option(min=0, max=2**63 - 1, help="Seed of samples; the default mode draws none.")]
Steps = Annotated[int, Option(min=0, help="Network calls per sample; 0 uses the checkpoint's default.")]

LINE_EVERY, OF_TIME = 10.0, 0.05
"""Seconds between two lines of a `Display`, at least, and their share of the time since the start."""
NAMED_FAILURES = 1000  # printed by name: a million of them would fill the memory


def open_pipeline(checkpoint: str, device: str) -> ResShiftPipeline:
    """The pipeline of a checkpoint, as `open_checkpoint` takes it, on a device."""
    import_diffusers()
    from retinashift.inference.memory import choose_device
    from retinashift.inference.pipeline import open_checkpoint

    chosen = choose_device(device)
    return open_checkpoint(checkpoint).to(chosen)


def check_outputs(*paths: Path | None, overwrite: bool, suffix: str = "") -> None:
    """Refuse files that could not be written at the end of a command, before its work begins; None is none.

    OSError where one exists or its folder does not; ValueError for an address, a folder, one twice, another suffix.
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


class Display:
    """How far a command is: a bar in a terminal, else a line every ten seconds, later more seldom. A context."""

    def __init__(self, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=quiet)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), console=self.console,
            disable=quiet or not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=1.0)
        self.clock = clock
        self.began = self.said = clock()

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        self.console.print(text, markup=False)

    def at(self, share: float, text: str, left: float | None = None, always: bool = False) -> None:
        """Show the share that is done and the seconds left, None to estimate them; `always` writes a line at once."""
        now = self.clock()
        if left is None and share:
            left = (now - self.began) * (1 - share) / share
        text = one_line(text) + (f", about {spoken(left)} left" if left and share < 1 else "")
        self.bar.update(self.task, completed=share, description=text)
        pause = max(LINE_EVERY, OF_TIME * (now - self.began))
        if self.bar.disable and share < 1 and (always or now - self.said >= pause):
            self.said = now
            self.say(text)

    def track(self, items: Sequence[T], what: str) -> Iterator[T]:
        """The items one by one; shows how many are done."""
        for done, item in enumerate(items, 1):
            yield item
            self.at(done / len(items), f"{what} ({done} of {len(items)})")


def spoken(seconds: float) -> str:
    """A duration in words.

    >>> spoken(7.4), spoken(130), spoken(12345)
    ('7 s', '2 min', '3 h 26 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def print_table(rows: list[list[str]]) -> None:
    """Print rows as a table; the first is the heading."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)  # a file has no edge to wrap at


class Failures:
    """Files on which a command failed. A context: its end prints a line for each and sets exit code 1."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = self.internal = 0

    def add(self, name: str, error: Exception | Failure) -> None:
        """Note that work on the file of that name ended with an error, which may name the file itself."""
        failure = explain(error) if isinstance(error, Exception) else error
        name = one_line(name)
        self.count += 1
        self.internal += failure.internal
        if self.count <= NAMED_FAILURES:
            self.lines.append(failure.text if name in failure.text else f"{name}: {failure.text}")

    def tell(self) -> None:
        """Print them on standard error."""
        lines = [f"failed: {line}" for line in self.lines]
        if self.count > NAMED_FAILURES:
            lines.append(f"failed: {self.count - NAMED_FAILURES} more; --log keeps the reason of each")
        if self.internal:
            lines.append(f"Internal errors of RetinaShift among the failures: {self.internal}. Please report them.")
        for line in lines:
            typer.echo(line, err=True)

    def __enter__(self) -> Failures:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.tell()
        if self.count and kind is None:
            raise typer.Exit(1)
