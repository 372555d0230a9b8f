"""The schedule command: the noise schedule as numbers or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schedule(
    kappa: Annotated[float, typer.Option(help="Strength of the noise.")] = 2.0,
    power: Annotated[float, typer.Option("--power", "-p", help="Smaller values shift earlier.")] = 0.3,
    steps: Annotated[int, typer.Option("--steps", "-T", help="T, the steps of the chain.")] = 15,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curve into this PNG file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
) -> None:
    """Show sqrt(eta) of a residual-shifting chain; --plot draws it."""
    from retinashift.diffusion.schedule import sqrt_eta_schedule
    from retinashift.imaging.figures.plot import draw_curves
    from retinashift.imaging.files import write_image

    sqrt_eta = sqrt_eta_schedule(steps, kappa=kappa, power=power)
    if plot is None:
        typer.echo(" ".join(f"{value:.5f}" for value in sqrt_eta.tolist()))
        return
    curves = {"sqrt(eta_t)": sqrt_eta.tolist(), "eta_t, the share of the residual": (sqrt_eta**2).tolist()}
    write_image(plot, draw_curves(curves, across=f"step t  (kappa {kappa:g}, p {power:g})"), overwrite=overwrite)
    typer.echo(f"Look at {plot}")
