"""The commands calibrate and coverage: what a checkpoint's uncertainty means, and whether that holds elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.cli.opening import LARGEST_SEED

if TYPE_CHECKING:
    import numpy as np

    from retinashift.data.photographs import FileRef

Data = Annotated[str, typer.Argument(help="Folder of HR photographs (8 bit); labels and masks are left out.")]
Limit = Annotated[int, typer.Option(min=0, help="Take the first so many photographs only; 0 is all.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the samples.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def calibrate(
    data: Data,
    checkpoint: Annotated[str, typer.Option("--checkpoint", "-c", help="Checkpoint folder; it is written into.")],
    samples: Annotated[str, typer.Option(help="Numbers of samples to calibrate for, by commas.")] = "2,4,8",
    seed: Seed = 0,
    limit: Limit = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a calibration that is there.")] = False,
    device: Device = "auto",
) -> None:
    """Measure what the spread of samples means, on photographs not trained on, and keep it with the checkpoint."""
    from retinashift.cli.opening import Failures, counting, open_pipeline
    from retinashift.data.photographs import find_photographs
    from retinashift.imaging.files import replace_file

    try:
        counts = [int(text) for text in samples.split(",")]
    except ValueError:
        raise ValueError(f"--samples is {samples!r}; whole numbers by commas are expected, such as 2,4,8") from None
    index = Path(checkpoint).expanduser() / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint folder; one that may be written into is needed")
    pipeline = open_pipeline(checkpoint, device)
    if pipeline.config.calibration is not None and not overwrite:
        raise FileExistsError(f"{checkpoint} is calibrated already; give --overwrite to replace that")
    refs = find_photographs(data)[: limit or None]
    from retinashift.evaluation.calibration import calibrate as measure

    with Failures() as failures:
        with counting("Calibrating", len(refs)) as done:
            found = measure(
                pipeline,
                [(ref.name, partial(_pixels, ref)) for ref in refs],
                counts=counts,
                seed=seed,
                source=Path(data).absolute().name,
                on_progress=done,
                on_failure=failures.add,
            )
        settings = json.loads(index.read_text(encoding="utf-8"))
        settings["calibration"] = found.to_config()
        replace_file(index, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
        for count, (spreads, sigmas) in found.curves.items():
            low, high = (f"{255 * spreads[end]:.2f} -> {255 * sigmas[end]:.2f}" for end in (0, -1))
            typer.echo(f"{count} samples: spread -> standard deviation, levels of 255: {low} ... {high}")
        typer.echo(f"Written to {index}")


def coverage(
    data: Data,
    samples: Annotated[int, typer.Option(min=2, help="Samples of each photograph.")] = 8,
    seed: Seed = 0,
    limit: Limit = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curve into this PNG file.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    device: Device = "auto",
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Folder, or a name of `retinashift info`; x4 if not given.")
    ] = "",
) -> None:
    """Tell how often the truth lies where the uncertainty says (bicubic-pillow, RGB, field of view)."""
    from retinashift.cli.opening import Failures, counting, open_pipeline
    from retinashift.cli.outputs import check_outputs
    from retinashift.data.photographs import find_photographs
    from retinashift.imaging.files import replace_file, write_image

    check_outputs(plot, json_path, overwrite=overwrite)
    check_outputs(plot, overwrite=overwrite, suffix=".png")
    pipeline = open_pipeline(checkpoint, device)
    refs = find_photographs(data)[: limit or None]
    from retinashift.evaluation.calibration import measure_coverage
    from retinashift.imaging.figures.plot import draw_against

    with Failures() as failures:
        with counting("Sampling", len(refs)) as done:
            photographs = [(ref.name, partial(_pixels, ref)) for ref in refs]
            found = measure_coverage(
                pipeline, photographs, samples, seed=seed, on_progress=done, on_failure=failures.add
            )
        for level, calibrated, spread in zip(found.stated, found.calibrated, found.spread, strict=True):
            typer.echo(f"stated {level:4.0%}  calibrated {calibrated:6.1%}  bare spread {spread:6.1%}")
        lowest = min(found.images, key=lambda name: found.images[name])
        typer.echo(f"At 90 %, by photograph: lowest {found.images[lowest]:.1%} ({lowest}), of {len(found.images)}")
        if json_path is not None:
            values = asdict(found) | {"data": Path(data).absolute().name, "seed": seed}
            replace_file(json_path, (json.dumps(values, indent=2) + "\n").encode())
        if plot is not None:
            curves = {"calibrated": found.calibrated, "bare spread": found.spread}
            picture = draw_against(found.stated, curves, across="stated", up="share of values inside")
            write_image(plot, picture, overwrite=overwrite)
            typer.echo(f"Look at {plot}")


def _pixels(ref: FileRef) -> np.ndarray:
    import numpy as np

    from retinashift.imaging.files import ImageError

    pixels = ref.read()
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ImageError(f"{ref.name} is {pixels.dtype} {pixels.shape}; 8-bit RGB is needed")
    return np.ascontiguousarray(pixels[..., :3])
