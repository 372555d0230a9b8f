"""What the commands show: how far they are, tables, and the files on which they failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from retinashift.imaging.failures import Failure, explain, one_line

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


class Display:
    """How far a command is: a bar in a terminal, else a line every ten seconds, later more seldom. A context.

    Args:
        quiet: show nothing.
        clock: seconds.
    """

    LINE_EVERY, OF_TIME = 10.0, 0.05
    """Seconds between two lines, at least, and their share of the time since the start."""

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
        """Show the share of the work that is done, and the seconds left, None to estimate them.

        `always` writes a line however short ago the last one was.
        """
        now = self.clock()
        if left is None and share:
            left = (now - self.began) * (1 - share) / share
        text = one_line(text) + (f", about {spoken(left)} left" if left and share < 1 else "")
        self.bar.update(self.task, completed=share, description=text)
        pause = max(self.LINE_EVERY, self.OF_TIME * (now - self.began))
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


def table_of(rows: list[list[str]]) -> Table:
    """Rows as a table; the first is the heading."""
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table


class Failures:
    """Files on which a command failed. A context: its end prints a line for each and sets exit code 1."""

    SHOWN = 1000
    """Failures that are printed by name: a million of them would fill the memory."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = self.internal = 0

    def add(self, name: str, error: Exception | Failure) -> None:
        """Note that work on the file of that name ended with an error, which may name the file itself."""
        failure = explain(error) if isinstance(error, Exception) else error
        name = one_line(name)
        self.count += 1
        self.internal += failure.internal
        if self.count <= self.SHOWN:
            self.lines.append(failure.text if name in failure.text else f"{name}: {failure.text}")

    def tell(self) -> None:
        """Print them on standard error."""
        for line in self.lines:
            typer.echo(f"failed: {line}", err=True)
        if self.count > self.SHOWN:
            typer.echo(f"failed: {self.count - self.SHOWN} more; --log keeps the reason of each", err=True)
        if self.internal:
            typer.echo(
                f"Internal errors of RetinaShift among the failures: {self.internal}. Please report them.", err=True
            )

    def __enter__(self) -> Failures:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.tell()
        if self.count and kind is None:
            raise typer.Exit(1)
