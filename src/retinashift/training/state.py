"""The state of a run on disk: written whole or not at all.

A run folder holds `state/00012800/{model.safetensors, ema.safetensors, optimizer.pt, meta.json}` and `state/latest`,
the name of the newest one, replaced last. A process killed at any moment leaves the former state or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinashift.imaging.files import replace_file


class StateError(ValueError):
    """A saved state that cannot be resumed from, in one line."""


@dataclass(frozen=True)
class Position:
    """The position of a run in its schedule."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Time spent training, interruptions left out."""
    best: float = float("-inf")
    """Best validation PSNR so far, dB."""


@dataclass(frozen=True)
class State:
    """Everything that resuming needs; tensors on the CPU."""

    position: Position
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    """Tensors and plain containers only, so that it loads without unpickling code."""


def save_state(folder: Path, state: State, keep: int) -> None:
    """Add a state under `folder` and drop all but the newest `keep`."""

    def write(target: Path) -> None:
        save_file(state.model, target / "model.safetensors")
        save_file(state.ema, target / "ema.safetensors")
        torch.save(state.optimizer, target / "optimizer.pt")
        (target / "meta.json").write_text(json.dumps(asdict(state.position)), encoding="utf-8")

    name = f"{state.position.step:08d}"
    write_folder(folder / name, write)
    replace_file(folder / "latest", name.encode())
    for old in sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())[:-keep]:
        if old.name != name:
            shutil.rmtree(old)


def load_state(folder: Path) -> State | None:
    """The newest state under `folder`, or None if there is none. StateError if it is damaged."""
    latest = folder / "latest"
    if not latest.is_file():
        return None
    source = folder / latest.read_text(encoding="utf-8").strip()
    try:
        position = Position(**json.loads((source / "meta.json").read_text(encoding="utf-8")))
        return State(
            position,
            load_file(source / "model.safetensors"),
            load_file(source / "ema.safetensors"),
            torch.load(source / "optimizer.pt", map_location="cpu", weights_only=True),
        )
    except Exception as error:
        raise StateError(
            f"{source} cannot be resumed from ({error}); remove the run folder or give another run.out"
        ) from error


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder under a temporary name and move it into place; an older one of that name is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = (target.with_name(f".{target.name}.{kind}") for kind in ("new", "old"))
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    write(fresh)
    for path in fresh.rglob("*"):
        if path.is_file():
            _sync(path)
    if target.exists():
        os.replace(target, stale)
    os.replace(fresh, target)
    _sync(target.parent)
    shutil.rmtree(stale, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle of a folder to flush
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes writable handles only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
