"""The state of a run on disk, written whole or not at all, and whether a run may go on from it.

A run folder holds `state/00012800/{model.safetensors, ema.safetensors, optimizer.pt, meta.json}` and `state/latest`,
the name of the newest one, replaced last. A process killed at any moment leaves the former state or the new one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinashift.imaging.files import flush_to_disk, replace_file
from retinashift.training.settings import ConfigError, TrainConfig, flattened

logger = logging.getLogger(__name__)

MAY_CHANGE_ON_RESUME = {
    f"run.{name}"
    for name in ("steps", "minutes", "log_every", "validate_every", "save_every", "keep", "workers", "cache_gib")
}


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
    best_step: int = 0
    """Step of that."""
    start: float = float("-inf")
    """Validation PSNR before the first step, dB."""


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


def state_to_resume(folder: Path, config: TrainConfig) -> State | None:
    """The state that a run with these settings goes on from; None for a run from the start.

    Args:
        folder: of the run.
        config: its settings, with `init_from` resolved.

    Raises:
        ConfigError: the folder holds another run, or checkpoints that a run from the start would replace.
        StateError: the state is damaged.
    """
    for name in ("checkpoint", "best"):
        restore_folder(folder / name)
    state, written = load_state(folder / "state"), folder / "config.yaml"
    kept = [name for name in ("checkpoint", "best") if (folder / name).exists()]
    if state is None and not kept:
        return None
    changed = ["no settings"]
    if state is not None or written.is_file():
        try:
            former, given = (flattened(run.model_dump(mode="json")) for run in (TrainConfig.load(written), config))
        except ConfigError as error:
            raise ConfigError(f"{written}: {error}; or give another run.out") from None
        names = [name for name in {**former, **given} if former.get(name) != given.get(name)]
        changed = [name for name in names if name not in MAY_CHANGE_ON_RESUME]
    if state is not None and changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); "
            "give another run.out, or the former settings to go on with it"
        )
    if state is None and (changed or kept != ["best"]):  # else it was stopped before its first state: the same again
        raise ConfigError(
            f"{folder} holds {' and '.join(f'{name}/' for name in kept)}, but no state to go on from; "
            "give another run.out, or move them away"
        )
    return state


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder under a temporary name and move it into place; an older one of that name is replaced.

    Where writing fails, nothing of it stays. A process killed between the two moves leaves the older folder under
    another name, and `restore_folder` moves it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(target)
    fresh, stale = target.with_name(f".{target.name}.new"), _replaced(target)
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir()
        write(fresh)
        for path in fresh.rglob("*"):
            if path.is_file():
                _sync(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if target.exists():
        os.replace(target, stale)
    os.replace(fresh, target)
    _sync(target.parent)
    shutil.rmtree(stale, ignore_errors=True)


def restore_folder(target: Path) -> None:
    """Move the older folder back where a process was killed before the newer one had taken its name."""
    if _replaced(target).is_dir() and not target.exists():
        os.replace(_replaced(target), target)


def _replaced(target: Path) -> Path:
    """The name of a folder while another one takes its place."""
    return target.with_name(f".{target.name}.old")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run folder; the system ends the lock with the process, however it ends.

    Raises:
        ConfigError: another run holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(f"{folder} is in use by another run; wait for its end, or give another run.out") from None
    except (OSError, NotImplementedError) as error:
        logger.warning("%s: its file system has no locks (%s); start no second run in it", folder, error)
    try:
        yield
    finally:
        lock.release()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle of a folder to flush
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes writable handles only
    try:
        flush_to_disk(handle)
    finally:
        os.close(handle)
