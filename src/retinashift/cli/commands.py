"""The command line: all commands, and the entry point.

Every command imports what it needs when it runs, so that --help answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from typer import Option

from retinashift import __version__
from retinashift.cli.app import app_command
from retinashift.cli.checkpoints import export_weights, import_weights, info, inspect_files
from retinashift.cli.pictures import degradations, demo, schedule
from retinashift.cli.scoring import EvaluateCommand, calibrate, coverage, evaluate
from retinashift.cli.training import finetune, train
from retinashift.cli.upscaling import merge_logs, upscale
from retinashift.imaging.failures import DEBUG_VARIABLE, LineFormatter, explain

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Super-resolution of retinal photographs by residual-shifting diffusion. For research use, not for diagnosis.",
)


def version(show: bool) -> None:
    if show:
        typer.echo(f"retinashift {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    _: Annotated[bool, Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None: ...


app.command()(upscale)
app.command("merge-logs")(merge_logs)
app.command("inspect")(inspect_files)
app.command("app")(app_command)
app.command()(finetune)
app.command()(train)
app.command(cls=EvaluateCommand)(evaluate)
app.command()(calibrate)
app.command()(coverage)
app.command()(info)
app.command("import")(import_weights)
app.command("export")(export_weights)
app.command()(demo)
app.command()(degradations)
app.command()(schedule)


def main() -> None:
    """Entry point: an error is one line on standard error and exit code 1; RETINASHIFT_DEBUG=1 adds the traceback."""
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    with _logging(debug):
        try:
            app()
        except Exception as error:
            if debug:
                raise
            print(f"error: {explain(error).text}", file=sys.stderr)
            sys.exit(1)


@contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Messages and warnings of all packages on standard error, each in one line."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    root, ours = logging.getLogger(), logging.getLogger("retinashift")
    level = ours.level
    root.addHandler(handler)
    logging.captureWarnings(True)
    if debug:
        ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        logging.captureWarnings(False)
