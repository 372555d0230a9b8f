"""The degradations command: a contact sheet of every step of the camera degradation at three strengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.cli.opening import LARGEST_SEED

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
_GAP, _BAR, _LEFT = 8, 24, 170
_INK, _PAPER = (30, 36, 46), (255, 255, 255)


def degradations(
    out: Annotated[Path, typer.Option("--out", "-o", help="The sheet, a PNG.")] = Path("degradations.png"),
    photograph: Annotated[
        Path | None, typer.Option(help="A photograph to degrade; without it, the public-domain retina of scikit-image.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Training settings whose degradation section is shown.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of place, direction and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a sheet that exists.")] = False,
) -> None:
    """Draw each step of the camera degradation at its least, middle and greatest strength, and the whole chain."""
    from retinashift.cli.outputs import check_outputs
    from retinashift.imaging.degradation.pipeline import Camera
    from retinashift.imaging.files import read_image, write_image
    from retinashift.training.settings import TrainConfig

    check_outputs(out, overwrite=overwrite, suffix=".png")
    settings = TrainConfig.load(config).degradation if config is not None else Camera()
    if not isinstance(settings, Camera):
        raise ValueError(f"{config}: its degradation is {settings.kind}; camera is the one with steps to draw")
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

    from retinashift.imaging.degradation.pipeline import STEPS

    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8 or min(hr.shape[:2]) < SIDE:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3), at least {SIDE} a side, is needed")
    rows = [(LABELS[step], _strengths(hr, settings, step, seed)) for step in STEPS]
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


def _chain(
    hr: np.ndarray, settings: Camera, seed: int, second: float | None = None
) -> list[tuple[str, np.ndarray]]:
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
    if step == "mosaic":
        return "RGGB, bilinear"
    if step == "jpeg":
        return f"quality {100 - strength:.0f}"
    unit = {"light": "", "haze": "", "spots": "", "noise": ""}.get(step, " px")
    return f"{strength:.3g}{unit}"


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
