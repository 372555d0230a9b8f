"""The command line, a leaf: it imports every room, and no room imports it. All commands, and the entry point.

Every command imports what it needs when it runs, so that --help answers at once.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from retinashift import __version__
from retinashift.cli.checkpoints import export_weights, import_weights, info, inspect_files
from retinashift.cli.pictures import degradations, demo, schedule
from retinashift.cli.scoring import EvaluateCommand, calibrate, coverage, evaluate
from retinashift.cli.shared import Checkpoint, Device
from retinashift.cli.training import finetune, train
from retinashift.cli.upscaling import merge_logs, upscale
from retinashift.imaging.failures import DEBUG_VARIABLE, LineFormatter, explain

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def version(show: bool) -> None:
    if show:
        typer.echo(f"retinashift {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    _: Annotated[bool, Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Super-resolution of retinal photographs by residual-shifting diffusion. For research use, not for diagnosis."""


def open_page(
    host: Annotated[str, Option(help="Address; other than this machine's own it needs --auth.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 7860,
    auth: Annotated[
        str, Option(envvar="RETINASHIFT_AUTH", help="NAME:PASSWORD to ask for; the variable hides it.")
    ] = "",
    device: Device = "auto",
    checkpoint: Checkpoint = "",
    max_upload: Annotated[int, Option("--max-upload", min=1, help="MiB of one upload.")] = 64,
    max_pixels: Annotated[int, Option("--max-pixels", min=1, help="Pixels of one photograph.")] = 8_000_000,
) -> None:
    """Open a local web page to upscale photographs and compare them closely."""
    from retinashift.web.settings import PageSettings

    try:
        from retinashift.web.server import serve
    except ImportError:
        raise ValueError("the page needs FastAPI and uvicorn: pip install 'retinashift[app]'") from None

    settings = PageSettings(host=host, port=port, credentials=auth, checkpoint=checkpoint, device=device,
        max_upload=max_upload * 2**20, max_pixels=max_pixels)  # fmt: skip
    serve(settings, lambda address: typer.echo(f"RetinaShift is at {address} (Ctrl-C ends it)"))


COMMANDS: dict[str, Callable[..., None]] = {
    "upscale": upscale, "merge-logs": merge_logs, "inspect": inspect_files, "app": open_page, "finetune": finetune,
    "train": train, "evaluate": evaluate, "calibrate": calibrate, "coverage": coverage, "info": info,
    "import": import_weights, "export": export_weights, "demo": demo, "degradations": degradations,
    "schedule": schedule,
}  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name, cls=EvaluateCommand if name == "evaluate" else None)(command)


def main() -> None:
    """Entry point: an error is one line on standard error and exit code 1; RETINASHIFT_DEBUG=1 adds the traceback."""
    debug, root = bool(os.environ.get(DEBUG_VARIABLE)), logging.getLogger()
    handler = logging.StreamHandler()  # for messages and warnings of all packages
    handler.setFormatter(LineFormatter())
    root.addHandler(handler)
    logging.captureWarnings(True)
    if debug:
        logging.getLogger("retinashift").setLevel(logging.DEBUG)
    try:
        app()
    except Exception as error:
        if debug:
            raise
        print(f"error: {explain(error).text}", file=sys.stderr)
        sys.exit(1)
    finally:  # a program may call it more than once
        root.removeHandler(handler)
        logging.captureWarnings(False)
