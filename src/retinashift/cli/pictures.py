"""The commands that draw: demo, schedule and degradations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from retinashift.cli.shared import Device, Overwrite, Seed, Steps, check_outputs, open_pipeline, print_table

if TYPE_CHECKING:
    import numpy as np

KAPPA, POWER, STEPS = 2.0, 0.3, 15  # of the chain of the paper
FILES = ("lr.png", "bicubic.png", "sr.png", "hr.png", "figure.png")  # what demo writes


def demo(
    out: Annotated[Path, Option("--out", "-o", help="Folder for the pictures.")] = Path("demo"),
    steps: Steps = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Upscale the public-domain retina of scikit-image and draw a labelled figure of the result."""
    from retinashift.batch.places import check_local

    check_local(out, "-o takes a local folder")
    existing = next((out / name for name in FILES if (out / name).exists()), None)
    if existing and not overwrite:
        raise FileExistsError(f"{existing} exists already; give --overwrite to replace it, or another folder with -o")
    pipeline = open_pipeline("", device)
    from retinashift.evaluation.similarity import consistency, psnr_rgb, ssim_y
    from retinashift.imaging.degradation.bicubic import enlarge
    from retinashift.imaging.files import write_image
    from retinashift.imaging.fundus import field_of_view
    from retinashift.training.validation import compare

    scale, started = pipeline.config.scale, time.perf_counter()
    found = compare({"RetinaShift": pipeline}, public_retina(), seed=seed, num_inference_steps=steps or None)
    seconds = time.perf_counter() - started
    hr, lr, results = found.hr, found.lr, found.results
    out.mkdir(parents=True, exist_ok=True)
    figure = found.figure(f"{steps} steps, seed {seed}. " if steps else "", 320, 80)
    for name, pixels in zip(FILES, (lr, *results.values(), hr, figure), strict=True):
        write_image(out / name, pixels, overwrite=True)
    rows, eye = [["method", "PSNR dB", "SSIM", "consistency dB"]], field_of_view(hr)
    for name, pixels in {"nearest": enlarge(lr, scale, "nearest"), **results}.items():
        scores = f"{psnr_rgb(pixels, hr, eye):.2f}", f"{ssim_y(pixels, hr, eye):.4f}"
        rows.append([name, *scores, f"{consistency(pixels, lr, scale):.1f}"])
    print_table(rows)
    typer.echo(
        f"{lr.shape[1]}x{lr.shape[0]} to {hr.shape[1]}x{hr.shape[0]} in {seconds:.1f} s. PSNR in RGB and SSIM on luma, "
        "both in the field of view; consistency is the PSNR of the result, reduced again, against the input.\n"
        f"Look at {out / FILES[-1]}"
    )


def schedule(
    kappa: Annotated[float, Option(help="Strength of the noise.")] = KAPPA,
    power: Annotated[float, Option("--power", "-p", help="Power of the schedule; small values shift early.")] = POWER,
    steps: Annotated[int, Option("--steps", "-T", help="Steps T of the chain.")] = STEPS,
    plot: Annotated[Path | None, Option("--plot", help="Draw the curve into this PNG file.")] = None,
    overwrite: Overwrite = False,
    checkpoint: Annotated[str, Option("--checkpoint", "-c", help="Show the chain of this checkpoint instead.")] = "",
) -> None:
    """Print sqrt(eta) of a residual-shifting chain; --plot draws it."""
    from retinashift.diffusion.process import sqrt_eta_schedule
    from retinashift.imaging.figures import draw_curves
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
    shares = {"sqrt(eta_t), share of the noise": sqrt_eta, "eta_t, share of the residual": sqrt_eta**2}
    curves = {name: share.tolist() for name, share in shares.items()}
    which = f"{checkpoint}: " if checkpoint else ""
    across = f"{which}step t of {len(sqrt_eta)}, from the photograph to the input (kappa {kappa:g}, p {power:g})"
    write_image(plot, draw_curves(curves, across=across), overwrite=overwrite)
    typer.echo(f"Look at {plot}")


def degradations(
    out: Annotated[Path, Option("--out", "-o", help="PNG file for the sheet.")] = Path("degradations.png"),
    photograph: Annotated[Path | None, Option(help="Photograph to degrade. Default: scikit-image's retina.")] = None,
    config: Annotated[Path | None, Option(help="Training settings with the degradation. Default: camera.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw each step of the camera degradation at its least, middle and greatest strength, and the whole chain."""
    from retinashift.imaging.degradation.pipeline import Camera
    from retinashift.imaging.figures import draw_sheet
    from retinashift.imaging.files import read_image, write_image
    from retinashift.training.settings import TrainConfig

    check_outputs(out, overwrite=overwrite, suffix=".png")
    settings = TrainConfig.load(config).degradation if config is not None else Camera()
    if not isinstance(settings, Camera):
        raise ValueError(f"{config}: its degradation is {settings.kind}; only camera has steps to draw")
    pixels = read_image(photograph).pixels if photograph is not None else public_retina()
    write_image(out, draw_sheet(pixels, settings, seed), overwrite=overwrite)
    typer.echo(f"Look at {out}")


def public_retina() -> np.ndarray:
    """The photograph of the demo, (704, 704, 3) uint8: at its own 1,411 pixels it is oversampled, and looks perfect.

    Source: M. Haggstroem, "Medical gallery of Mikael Haggstroem 2014", CC0, as shipped with scikit-image.
    """
    import numpy as np
    import skimage.data
    from PIL import Image

    return np.asarray(Image.fromarray(skimage.data.retina()).resize((704, 704), Image.Resampling.LANCZOS))
