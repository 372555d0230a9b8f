"""The import and export commands: official ResShift weights to a checkpoint folder and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinashift.official.releases import LICENCE_NOTICE, ReleaseName


def import_weights(
    file: Annotated[Path, typer.Argument(help="Official denoiser, a .pth or .safetensors file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint; it must not exist.")],
    vq: Annotated[
        Path | None, typer.Option("--vq", help="Official autoencoder; without it, the release's own beside FILE.")
    ] = None,
    release: Annotated[
        ReleaseName | None, typer.Option(help="Which release FILE is; without it, told by the published file name.")
    ] = None,
) -> None:
    """Turn official ResShift or SinSR weights into a checkpoint folder. They are for non-commercial use only."""
    typer.echo(LICENCE_NOTICE)
    from retinashift.official.convert import import_official

    import_official(file, vq, release, out)
    typer.echo(f"checkpoint in {out}; use it with --checkpoint {out}")


def export_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, made by import or fine-tuned from one.")],
    unet: Annotated[Path, typer.Option("--out", "-o", help="File for the denoiser; it must not exist.")],
    vq: Annotated[Path, typer.Option("--vq", help="File for the autoencoder; it must not exist.")],
) -> None:
    """Write a checkpoint as official ResShift files, for programs that read those. They stay non-commercial."""
    typer.echo(LICENCE_NOTICE)
    from retinashift.official.convert import export_official

    export_official(checkpoint, unet, vq)
    typer.echo(f"denoiser in {unet}, autoencoder in {vq}")
