"""The commands about checkpoints and what they made: info, inspect, import, export."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from retinashift import __version__
from retinashift.cli.display import Failures, table_of
from retinashift.cli.options import Checkpoint, Json, open_pipeline
from retinashift.imaging.failures import printable
from retinashift.official.releases import LICENCE_NOTICE, ReleaseName

if TYPE_CHECKING:
    from retinashift.imaging.provenance import Provenance
    from retinashift.inference.advice import Condition

_ANY_RESULT = 2**32
"""Pixels: `inspect` decodes nothing, so large results are allowed."""


def info(
    checkpoint: Checkpoint = "",
    as_json: Json = False,
) -> None:
    """Show a checkpoint (denoiser, schedule, parameters), the bundled ones, and the devices of this machine."""
    import torch
    from rich.console import Console

    pipeline = open_pipeline(checkpoint, "cpu")
    from retinashift.data.checks import read_trained_on
    from retinashift.inference.checkpoints import DEFAULT
    from retinashift.inference.pipeline import shipped_names
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
        return
    shown = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in facts.items()}
    shown |= {"parameters": f"{facts['parameters']:,}", "scale": f"x{facts['scale']}"}
    shown["trained on"] = f"{facts['trained on']} photographs" if facts["trained on"] else "not stated"
    Console().print(table_of([["what", "value"], *([name, str(value)] for name, value in shown.items())]))


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
                record, condition = find_provenance(data, str(path)), None
                if record is None:
                    condition = measure_condition(decode_image(data, str(path)).pixels, quality_of_jpeg(data))
                rows = _condition_rows(condition) if condition else _rows(record) if record else []
            except Exception as error:
                failures.add(str(path), error)
                continue
            missing |= record is None
            name = printable(str(path))
            if as_json:
                values = {"file": str(path), "provenance": None if record is None else asdict(record)}
                if condition is not None:
                    values["input"] = asdict(condition) | {"advised": condition.advised}
                typer.echo(json.dumps(values))
                continue
            unknown = ": no provenance record; it may be an original, or was saved by another program"
            typer.echo(name + (unknown if record is None else f"\n  {NOTE}"))
            for what, value in rows:
                typer.echo(f"  {printable(what):<18} {printable(value)}")
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
    from retinashift.batch.places import check_local

    for path in (onnx, unet, vq):
        if path is not None:
            check_local(path, "--onnx, -o and --vq take local files")
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


def _condition_rows(found: Condition) -> list[tuple[str, str]]:
    quality = "" if found.jpeg_quality is None else f", JPEG quality {found.jpeg_quality}"
    why = f" ({', '.join(found.faults)})" if found.faults else ""
    return [
        ("field of view", f"{found.diameter} pixels across, {found.field:.0%} of the frame"),
        ("noise", f"{found.noise} levels of 255"),
        ("sharpness", f"{found.sharpness} (finest octave over the next)"),
        ("compression", f"block steps {found.blocking}{quality}"),
        ("fundus photograph", "yes, by colour and texture" if found.fundus else "it does not look like one"),
        ("checkpoint advised", found.advised + why),
    ]


def _rows(record: Provenance) -> list[tuple[str, str]]:
    figure = "equal" if record.consistency_db is None else f"{record.consistency_db} dB"
    rows = [
        ("scale", f"x{record.scale}"),
        ("checkpoint", f"sha256 {record.checkpoint}"),
        ("input", f"sha256 {record.input}"),
        ("network calls", f"{record.steps} a sample, {record.ensemble} averaged"),
        ("seed", "none: a function of the input" if record.seed is None else str(record.seed)),
        ("back-projections", str(record.back_projections)),
        ("consistency", f"{figure} (the result reduced again, against the input)"),
        ("device", f"{record.device}; the same again gives the same pixels at the same number of threads"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    if record.bicubic_share:
        rows.append(("self-check", record.returned()))
    if record.detail_factor != 1:
        rows.append(("detail", f"times {record.detail_factor:g}, by the sharpness of the input"))
    rows += [(name, str(value)) for name, value in record.options.items()]
    if record.input_was_super_resolved:
        rows.append(("mind", "the input was a result of super-resolution itself"))
    return rows
