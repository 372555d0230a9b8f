"""How every command opens a checkpoint and shows that it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from retinashift.imaging.failures import explain, printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from retinashift.inference.pipeline import ResShiftPipeline

LARGEST_SEED = 2**63 - 1
"""What a `torch.Generator` takes on every device."""


def open_pipeline(checkpoint: str, device: str) -> ResShiftPipeline:
    """The pipeline of a checkpoint, as `open_checkpoint` takes it, on a device."""
    quiet_libraries()
    from retinashift.inference.checkpoints import open_checkpoint
    from retinashift.inference.device import choose_device

    chosen = choose_device(device)
    return open_checkpoint(checkpoint).to(chosen)


def quiet_libraries() -> None:
    """diffusers draws its own bar while loading; ours is the only one."""
    from diffusers.utils import logging

    logging.disable_progress_bar()


def progress_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, and what to call with the number done."""
    with progress_bar() as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


class Failures:
    """Files on which a command could not work. A context: its end prints a line for each and sets exit code 1."""

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
