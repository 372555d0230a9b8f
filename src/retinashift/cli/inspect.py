"""`retinashift inspect`: what made a file, as it says itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinashift.imaging.failures import explain, printable

if TYPE_CHECKING:
    from retinashift.imaging.provenance import Provenance

_ANY_RESULT = 2**32
"""Pixels: nothing is decoded, so a large result is no danger."""


def inspect_files(
    files: Annotated[list[Path], typer.Argument(help="Results of `retinashift upscale`, or any other picture.")],
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each file.")] = False,
) -> None:
    """Tell what made a picture: checkpoint, settings, input, consistency.

    Exit code 1 if one has no such record or cannot be read; the others are told all the same.
    """
    from retinashift.imaging.files import find_provenance, read_bytes

    missing = False
    for path in files:
        try:
            record = find_provenance(read_bytes(path, _ANY_RESULT), str(path))
        except Exception as error:
            text = explain(error).text
            typer.echo(f"error: {text if str(path) in text else f'{printable(str(path))}: {text}'}", err=True)
            missing = True
            continue
        missing |= record is None
        if as_json:
            typer.echo(json.dumps({"file": str(path), "provenance": None if record is None else asdict(record)}))
        else:
            _tell(path, record)
    if missing:
        raise typer.Exit(1)


def _tell(path: Path, record: Provenance | None) -> None:
    from retinashift.imaging.provenance import NOTE

    if record is None:
        reason = "no record of RetinaShift; it may be an original, or was saved by another program"
        typer.echo(f"{printable(str(path))}: {reason}")
        return
    typer.echo(f"{printable(str(path))}\n  {NOTE}")
    for name, value in _rows(record):
        typer.echo(f"  {printable(name):<18} {printable(value)}")


def _rows(record: Provenance) -> list[tuple[str, str]]:
    figure = "equal" if record.consistency_db is None else f"{record.consistency_db} dB"
    rows = [
        ("scale", f"x{record.scale}"),
        ("checkpoint", f"sha256 {record.checkpoint}"),
        ("input", f"sha256 {record.input}"),
        ("network calls", f"{record.steps} a sample, {record.ensemble} averaged"),
        ("seed", str(record.seed)),
        ("back-projections", str(record.back_projections)),
        ("consistency", f"{figure} (the result reduced again, against the input)"),
        ("device", record.device),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    if record.bicubic_share:
        rows.append(("self-check", record.returned()))
    rows += [(name, str(value)) for name, value in record.options.items()]
    if record.input_was_super_resolved:
        rows.append(("mind", "the input was a result of super-resolution itself"))
    return rows
