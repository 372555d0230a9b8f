"""The commands that draw: demo, schedule, and degradations with its sheet of all steps at three strengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.cli.options import Device, Overwrite, Seed, Steps, check_outputs, open_pipeline, table_of

if TYPE_CHECKING:
    import numpy as np

    from retinashift.imaging.degradation.pipeline import Camera, Step

SIDE = 200
"""Pixels of a picture on the sheet."""
LABELS = {
    "light": "uneven light", "haze": "haze", "spots": "spots", "isotropic": "Gaussian blur",
    "anisotropic": "anisotropic blur", "defocus": "defocus", "motion": "motion", "noise": "sensor noise",
    "mosaic": "mosaic, demosaiced", "jpeg": "JPEG",
}  # fmt: skip
UNITS = {
    "light": ("light", " %", 100), "haze": ("scattered", " %", 100), "spots": ("brightness", " %", 100),
    "isotropic": ("sigma", " px", 1), "anisotropic": ("sigma", " px", 1), "defocus": ("radius", " px", 1),
    "motion": ("length", " px", 1), "noise": ("deviation", " % of white", 100), "mosaic": ("RGGB, bilinear", "", 1),
    "jpeg": ("quality", "", 1),
}  # fmt: skip
"""What the strength of a step measures, its unit, and the unit's factor."""
KAPPA, POWER, STEPS = 2.0, 0.3, 15
"""The chain of the paper."""
_GAP, _BAR, _LEFT = 8, 24, 170
_INK, _PAPER = (30, 36, 46), (255, 255, 255)


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
    from retinashift.imaging.files import read_image, write_image
    from retinashift.training.settings import TrainConfig

    check_outputs(out, overwrite=overwrite, suffix=".png")
    settings = TrainConfig.load(config).degradation if config is not None else Camera()
    if not isinstance(settings, Camera):
        raise ValueError(f"{config}: its degradation is {settings.kind}; only camera has steps to draw")
    pixels = read_image(photograph).pixels if photograph is not None else _public_retina()
    write_image(out, draw_sheet(pixels, settings, seed), overwrite=overwrite)
    typer.echo(f"Look at {out}")


def draw_sheet(hr: np.ndarray, settings: Camera, seed: int) -> np.ndarray:
    """The sheet, (H, W, 3) uint8.

    Args:
        hr: (H, W, 3) uint8, both sides at least 200.
        settings: whose ranges are shown.
        seed: the same place, direction and noise for the three strengths of a step.

    Raises:
        ValueError: another shape or dtype, or a smaller photograph.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from retinashift.imaging.degradation.pipeline import STEPS as ALL

    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8 or min(hr.shape[:2]) < SIDE:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3), at least {SIDE} a side, is needed")
    rows = [(LABELS[step], _strengths(hr, settings, step, seed)) for step in ALL]
    rows += [("the chain, as set", _chain(hr, settings, seed))]
    rows += [("second order", _chain(hr, settings, seed, second=1.0))]
    width = _LEFT + 4 * (SIDE + _GAP)
    canvas = Image.new("RGB", (width, (SIDE + _BAR + _GAP) * len(rows) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (label, pictures) in enumerate(rows):
        top = _GAP + number * (SIDE + _BAR + _GAP)
        draw.text((_GAP, top + _BAR + SIDE // 2 - 8), label, fill=_INK, font=font)
        for column, (caption, picture) in enumerate(pictures):
            left = _LEFT + column * (SIDE + _GAP)
            draw.text((left, top + 3), caption, fill=_INK, font=font)
            canvas.paste(Image.fromarray(picture), (left, top + _BAR))
    return np.asarray(canvas)


def _strengths(hr: np.ndarray, settings: Camera, step: Step, seed: int) -> list[tuple[str, np.ndarray]]:
    """Caption and picture of the original and of three strengths."""
    import numpy as np

    from retinashift.imaging.degradation.pipeline import OPTICS, apply_step

    shown = _whole(hr) if step in OPTICS else _detail(hr)  # optics span the picture
    pictures = [("original", shown)]
    if step == "mosaic":
        strengths = [0.0]
    else:
        least, most = getattr(settings, step)
        strengths = [least, (least + most) / 2, most]
    for strength in strengths:
        made = apply_step(shown.astype(np.float32) / 255, step, strength, np.random.default_rng(seed))
        pictures.append((_caption(step, strength), np.rint(made * 255).astype(np.uint8)))
    return pictures


def _chain(hr: np.ndarray, settings: Camera, seed: int, second: float | None = None) -> list[tuple[str, np.ndarray]]:
    """Three inputs of the whole chain at x4, each enlarged by repetition."""
    from dataclasses import replace

    import numpy as np

    from retinashift.imaging.degradation.bicubic import enlarge

    if second is not None:
        settings = replace(settings, second_order=second)
    shown = _detail(hr)
    inputs = [settings(shown, 4, np.random.default_rng((seed, number))) for number in range(3)]
    return [("original", shown), *((f"seed {seed}.{i}", enlarge(lr, 4, "nearest")) for i, lr in enumerate(inputs))]


def _caption(step: Step, strength: float) -> str:
    """A strength with what it measures and its unit."""
    measure, unit, factor = UNITS[step]
    value = 100 - strength if step == "jpeg" else strength * factor
    return f"{measure} {value:.3g}{unit}" if step != "mosaic" else measure


def _whole(hr: np.ndarray) -> np.ndarray:
    import numpy as np
    from PIL import Image

    side = min(hr.shape[:2])
    top, left = ((length - side) // 2 for length in hr.shape[:2])
    square = Image.fromarray(np.ascontiguousarray(hr[top : top + side, left : left + side]))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _detail(hr: np.ndarray) -> np.ndarray:
    """The square with the most structure."""
    import numpy as np
    from scipy import ndimage

    green = hr[..., 1].astype(np.float32)
    structure = np.abs(green - ndimage.gaussian_filter(green, 4))
    around = ndimage.uniform_filter(structure, SIDE, mode="constant")
    row, column = np.unravel_index(around.argmax(), around.shape)
    top, left = (int(np.clip(at - SIDE // 2, 0, n - SIDE)) for at, n in zip((row, column), hr.shape[:2], strict=True))
    return np.ascontiguousarray(hr[top : top + SIDE, left : left + SIDE])


def _public_retina() -> np.ndarray:
    """At half its pixels: at full size it is oversampled, and blur would hardly be seen."""
    import numpy as np
    import skimage.data
    from PIL import Image

    return np.asarray(Image.fromarray(skimage.data.retina()).resize((704, 704), Image.Resampling.LANCZOS))
