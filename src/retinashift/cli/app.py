"""The app command: the local web page."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from typer import Option


def app_command(
    host: Annotated[str, Option(help="Address; other than this machine's own it needs --auth.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 7860,
    auth: Annotated[
        str, Option(help="NAME:PASSWORD to ask for; the environment variable RETINASHIFT_AUTH hides it better.")
    ] = "",
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    checkpoint: Annotated[
        str, Option("--checkpoint", "-c", help="Folder, or a name of `retinashift info`; x4 if not given.")
    ] = "",
    max_upload: Annotated[int, Option("--max-upload", min=1, help="MiB of one upload.")] = 64,
    max_pixels: Annotated[int, Option("--max-pixels", min=1, help="Pixels of one photograph.")] = 8_000_000,
) -> None:
    """Open a local web page to upscale photographs and compare them closely."""
    from retinashift.web.settings import CREDENTIALS_VARIABLE, PageSettings

    try:
        from retinashift.web.server import serve
    except ImportError:
        raise ValueError("the page needs FastAPI and uvicorn: pip install 'retinashift[app]'") from None

    settings = PageSettings(host=host, port=port, credentials=auth or os.environ.get(CREDENTIALS_VARIABLE, ""),
        device=device, checkpoint=checkpoint, max_upload=max_upload * 2**20, max_pixels=max_pixels)  # fmt: skip
    serve(settings, lambda address: typer.echo(f"RetinaShift is at {address} (Ctrl-C ends it)"))
