"""The commands about checkpoints and what they made: info, inspect, import, export."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from retinashift import __version__
from retinashift.cli.shared import Checkpoint, Failures, Json, check_outputs, open_pipeline, print_table
from retinashift.imaging.failures import printable
from retinashift.official import LICENCE_NOTICE, ReleaseName

_ANY_RESULT = 2**32  # pixels: `inspect` decodes no result, so large ones are allowed
_NO_RECORD = ": no provenance record; it may be an original, or was saved by another program"


def info(checkpoint: Checkpoint = "", as_json: Json = False) -> None:
    """Show a checkpoint (denoiser, schedule, parameters), the bundled ones, and the devices of this machine."""
    import torch

    pipeline = open_pipeline(checkpoint, "cpu")
    from retinashift.data.checks import read_trained_on
    from retinashift.inference.pipeline import DEFAULT, shipped_names
    from retinashift.inference.record import checkpoint_hash

    scheduler, denoiser, chain = pipeline.scheduler, pipeline.denoiser, pipeline.scheduler.config
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    gpus += ["Apple MPS"] if torch.backends.mps.is_available() else []
    facts: dict[str, Any] = {
        "checkpoint": checkpoint or DEFAULT,
        "sha256": checkpoint_hash(pipeline),
        "scale": pipeline.config.scale,
        "denoiser": type(denoiser).__name__,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "codec": str(pipeline.image_codec),
        "steps trained": chain.num_train_timesteps,
        "steps by default": pipeline.config.default_steps,
        "kappa": chain.kappa,
        "power": chain.power,
        "predicts": chain.prediction_type,
        "sqrt(eta)": [round(value, 4) for value in scheduler.sqrt_eta.tolist()],
        "trained on": len(read_trained_on(Path(pipeline.name_or_path or ""))),
        "bundled": shipped_names(),
        "devices": [*gpus, f"CPU ({torch.get_num_threads()} threads)"],
        "versions": [f"retinashift {__version__}", f"torch {torch.__version__}", f"Python {sys.version.split()[0]}"],
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        print_table([["what", "value"], *in_words(facts)])


def inspect_files(
    files: Annotated[list[Path], Argument(help="Photographs, or results of `retinashift upscale`.")],
    as_json: Json = False,
) -> None:
    """Show what made a result, or what a photograph is like as an input, and the checkpoint advised for it.

    Exit code 1 if a file has no provenance record or cannot be read; the others are shown.
    """
    from retinashift.imaging.files import decode_image, find_provenance, read_bytes
    from retinashift.imaging.provenance import NOTE
    from retinashift.inference.advice import measure_condition, quality_of_jpeg

    missing = False
    with Failures() as failures:
        for path in files:
            try:
                data = read_bytes(path, _ANY_RESULT)
                record = find_provenance(data, str(path))
                if record is None:
                    found = measure_condition(decode_image(data, str(path)).pixels, quality_of_jpeg(data))
                    told = asdict(found) | {"faults": found.faults, "advised": found.advised}
                    about, note = {"provenance": None, "input": told}, _NO_RECORD
                else:
                    told = asdict(record)
                    about, note = {"provenance": told}, f"\n  {NOTE}"
            except Exception as error:
                failures.add(str(path), error)
                continue
            missing |= record is None
            lines = [f"{printable(str(path))}{note}", *(f"  {what:<18} {value}" for what, value in in_words(told))]
            typer.echo(json.dumps({"file": str(path), **about}) if as_json else "\n".join(lines))
    if missing:
        raise typer.Exit(1)


def import_weights(
    file: Annotated[Path, Argument(help="Official denoiser, a .pth or .safetensors file.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder for the checkpoint; it must not exist.")],
    vq: Annotated[Path | None, Option("--vq", help="Official autoencoder. Default: beside FILE.")] = None,
    release: Annotated[ReleaseName | None, Option(help="Release of FILE. Default: by its published name.")] = None,
) -> None:
    """Convert official ResShift or SinSR weights into a checkpoint folder. They are for non-commercial use only."""
    from retinashift.batch.places import check_local

    check_local(out, "-o takes a local folder")
    typer.echo(LICENCE_NOTICE)
    from retinashift.official.convert import import_official

    import_official(file, vq, release, out)
    typer.echo(f"checkpoint in {out}; use it with --checkpoint {out}")


def export_weights(
    checkpoint: Annotated[str, Argument(help="Checkpoint folder, or a name of `retinashift info`.")],
    onnx: Annotated[Path | None, Option("--onnx", help="New file for the faithful mode as one ONNX graph.")] = None,
    fp16: Annotated[bool, Option("--fp16", help="Store the weights of the ONNX file in half precision.")] = False,
    unet: Annotated[Path | None, Option("--out", "-o", help="New file for an official denoiser.")] = None,
    vq: Annotated[Path | None, Option("--vq", help="New file for its autoencoder.")] = None,
) -> None:
    """Write a checkpoint as ONNX, or an imported one as official ResShift files, which stay non-commercial."""
    check_outputs(onnx, unet, vq, overwrite=True)  # what writes them replaces none
    if onnx is not None:
        if unet or vq:
            raise ValueError("--onnx and -o or --vq are given; export one form at a time")
        from retinashift.inference.onnx_graph import export_onnx

        export_onnx(open_pipeline(checkpoint, "cpu"), onnx, fp16)
        typer.echo(f"ONNX graph in {onnx}; research use only, not for diagnosis")
        return
    if unet is None or vq is None or fp16:
        raise ValueError("give --onnx FILE [--fp16], or both -o FILE and --vq FILE for official files")
    typer.echo(LICENCE_NOTICE)
    from retinashift.official.convert import export_official

    export_official(Path(checkpoint), unet, vq)
    typer.echo(f"denoiser in {unet}, autoencoder in {vq}")


def in_words(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """Names and values of facts as lines of a table; those without a value are left out."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {own}" for key, own in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, "", False):
            yield [printable(name.replace("_", " ")), printable(str(value))]
