"""The commands that draw: demo, schedule and degradations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.cli.options import Device, Overwrite, Seed, Steps, check_outputs, open_pipeline, table_of

if TYPE_CHECKING:
    import numpy as np

KAPPA, POWER, STEPS = 2.0, 0.3, 15
"""The chain of the paper."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo"),
    steps: Steps = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Upscale the public-domain retina of scikit-image and draw a labelled figure of the result."""
    from rich.console import Console

    from retinashift.batch.places import check_local
    from retinashift.cli.demo import run_demo

    check_local(out, "-o takes a local folder")
    report = run_demo(open_pipeline("", device), out, steps=steps or None, seed=seed, overwrite=overwrite)
    console = Console(soft_wrap=True)
    console.print(table_of(report.rows))
    console.print(report.note, markup=False)
    console.print(f"Look at {report.figure}", markup=False)


def schedule(
    kappa: Annotated[float, typer.Option(help="Strength of the noise.")] = KAPPA,
    power: Annotated[
        float, typer.Option("--power", "-p", help="Power of the schedule; small values shift early.")
    ] = POWER,
    steps: Annotated[int, typer.Option("--steps", "-T", help="Steps T of the chain.")] = STEPS,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curve into this PNG file.")] = None,
    overwrite: Overwrite = False,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Show the chain of this checkpoint instead.")
    ] = "",
) -> None:
    """Print sqrt(eta) of a residual-shifting chain; --plot draws it."""
    from retinashift.diffusion.schedule import sqrt_eta_schedule
    from retinashift.imaging.figures.plot import draw_curves
    from retinashift.imaging.files import write_image

    check_outputs(plot, overwrite=overwrite, suffix=".png")
    if not checkpoint:
        sqrt_eta = sqrt_eta_schedule(steps, kappa=kappa, power=power)
    elif (kappa, power, steps) != (KAPPA, POWER, STEPS):
        raise ValueError("--checkpoint has a chain of its own; leave --kappa, --power and --steps out")
    else:
        scheduler = open_pipeline(checkpoint, "cpu").scheduler
        sqrt_eta, kappa, power = scheduler.sqrt_eta, scheduler.config.kappa, scheduler.config.power
    if plot is None:
        typer.echo(" ".join(f"{value:.5f}" for value in sqrt_eta.tolist()))
        return
    eta = (sqrt_eta**2).tolist()
    curves = {"sqrt(eta_t), share of the noise": sqrt_eta.tolist(), "eta_t, share of the residual": eta}
    which = f"{checkpoint}: " if checkpoint else ""
    across = f"{which}step t of {len(sqrt_eta)}, from the photograph to the input (kappa {kappa:g}, p {power:g})"
    write_image(plot, draw_curves(curves, across=across), overwrite=overwrite)
    typer.echo(f"Look at {plot}")


def degradations(
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file for the sheet.")] = Path("degradations.png"),
    photograph: Annotated[
        Path | None, typer.Option(help="Photograph to degrade. Default: the public-domain retina of scikit-image.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Training settings whose degradation is drawn. Default: camera.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw each step of the camera degradation at its least, middle and greatest strength, and the whole chain."""
    from retinashift.imaging.degradation.pipeline import Camera
    from retinashift.imaging.figures.sheet import draw_sheet
    from retinashift.imaging.files import read_image, write_image
    from retinashift.training.settings import TrainConfig

    check_outputs(out, overwrite=overwrite, suffix=".png")
    settings = TrainConfig.load(config).degradation if config is not None else Camera()
    if not isinstance(settings, Camera):
        raise ValueError(f"{config}: its degradation is {settings.kind}; only camera has steps to draw")
    pixels = read_image(photograph).pixels if photograph is not None else _public_retina()
    write_image(out, draw_sheet(pixels, settings, seed), overwrite=overwrite)
    typer.echo(f"Look at {out}")


def _public_retina() -> np.ndarray:
    """At half its pixels: at full size it is oversampled, and blur would hardly be seen."""
    import numpy as np
    import skimage.data
    from PIL import Image

    return np.asarray(Image.fromarray(skimage.data.retina()).resize((704, 704), Image.Resampling.LANCZOS))
