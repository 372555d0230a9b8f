"""The files of a run: its state, written whole or not at all, its log, its checkpoint, and whether it may go on.

A run folder holds `state/00012800/{model.safetensors, ema.safetensors, optimizer.pt, meta.json}` and `state/latest`,
the name of the newest one, replaced last. A process killed at any moment leaves the former state or the new one.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from retinashift.data.checks import read_trained_on, write_trained_on
from retinashift.imaging.files import flush_to_disk, replace_file
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.adapters import merged, save_adapter
from retinashift.training.settings import ConfigError, TrainConfig, flattened

logger = logging.getLogger(__name__)

CARD = """\
{front}# Fine-tuned with RetinaShift

Trained with the settings in `training.yaml`, starting from the checkpoint that is described below. The licence of that
checkpoint still holds. Its scores say nothing about this one.

## The starting checkpoint

{start}"""

MAY_CHANGE_ON_RESUME = (
    "run.steps", "run.minutes", "run.log_every", "run.validate_every", "run.save_every", "run.keep", "run.workers",
    "run.cache_gib",
)  # fmt: skip


@dataclass(frozen=True)
class Position:
    """The position of a run in its schedule."""

    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # spent training, interruptions left out
    best: float = float("-inf")  # validation PSNR so far, dB
    best_step: int = 0
    start: float = float("-inf")  # validation PSNR before the first step, dB


@dataclass(frozen=True)
class State:
    """Everything that resuming needs."""

    position: Position
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]  # tensors and plain containers only, so that it loads without unpickling code


def save_state(folder: Path, state: State, keep: int) -> None:
    """Add a state under `folder` and drop all but the newest `keep`."""

    def write(target: Path) -> None:
        for name, weights in (("model", state.model), ("ema", state.ema)):
            save_file({key: value.cpu().contiguous() for key, value in weights.items()}, target / f"{name}.safetensors")
        torch.save(state.optimizer, target / "optimizer.pt")
        (target / "meta.json").write_text(json.dumps(asdict(state.position)), encoding="utf-8")

    name = f"{state.position.step:08d}"
    write_folder(folder / name, write)
    replace_file(folder / "latest", name.encode())
    for old in sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())[:-keep]:
        if old.name != name:
            shutil.rmtree(old)


def load_state(folder: Path) -> State | None:
    """The newest state under `folder`, or None if there is none. ConfigError if it is damaged."""
    latest = folder / "latest"
    if not latest.is_file():
        return None
    source = folder / latest.read_text(encoding="utf-8").strip()
    try:
        return State(
            Position(**json.loads((source / "meta.json").read_text(encoding="utf-8"))),
            load_file(source / "model.safetensors"),
            load_file(source / "ema.safetensors"),
            torch.load(source / "optimizer.pt", map_location="cpu", weights_only=True),
        )
    except Exception as error:
        raise ConfigError(
            f"{source} cannot be resumed from ({error}); remove the run folder or give another run.out"
        ) from error


def state_to_resume(folder: Path, config: TrainConfig) -> State | None:
    """The state that a run with these settings, `init_from` resolved, goes on from; None for a run from the start.

    Raises:
        ConfigError: a damaged state, another run, or checkpoints that a run from the start would replace.
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
    """Keep other runs out of a run folder, by ConfigError; the system ends the lock with the process."""
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


def write_checkpoint(folder: Path, pipeline: ResShiftPipeline, config: TrainConfig, photographs: Iterable[str]) -> None:
    """Fill an empty folder; adapters are merged into the denoiser, and also lie alone in `adapter/`.

    `photographs` are hashes of what it was trained on; those of where it started (`name_or_path`) are added.
    """
    start = Path(pipeline.name_or_path) if config.init_from else None
    with merged_adapters(pipeline, config):
        pipeline.save_pretrained(folder, safe_serialization=True)
    if config.lora.rank:
        save_adapter(pipeline.denoiser, folder / "adapter")
    (folder / "training.yaml").write_text(config.to_yaml(), encoding="utf-8")
    write_trained_on(folder, [*photographs, *(read_trained_on(start) if start else ())])
    if start and (card := continued_card(start)):
        (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def merged_adapters(pipeline: ResShiftPipeline, config: TrainConfig) -> Iterator[None]:
    """Within it the pipeline has the plain denoiser of a checkpoint, with adapters merged into its layers."""
    adapted = pipeline.denoiser
    if config.lora.rank:
        pipeline.register_modules(denoiser=merged(adapted))
    try:
        yield
    finally:
        pipeline.register_modules(denoiser=adapted)


def continued_card(start: Path) -> str | None:
    """The card of a checkpoint trained from the one in `start`, with its metadata and text; None if it has no card."""
    try:
        text = (start / "README.md").read_text(encoding="utf-8")
    except OSError:
        return None
    front = re.match(r"---\n.*?\n---\n", text, re.DOTALL)  # YAML for model hubs, with the licence
    if front:
        text = text[front.end() :].lstrip("\n")
    below = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]  # under our own heading
    return CARD.format(front=front[0] + "\n" if front else "", start="\n".join(below) + "\n")


class RunRecord:
    """Appends to a run's logs; made on the main process only. `board` is the one of TensorBoard, to be closed."""

    def __init__(self, folder: Path, resume_step: int = 0):
        self._path = folder / "log.jsonl"
        _cut_after(self._path, resume_step)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line; numbers also become TensorBoard curves under `kind/`."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"event": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.board.add_scalar(f"{kind}/{name}", value, step)


def _cut_after(path: Path, step: int) -> None:
    """Drop lines beyond the state that is resumed from, because those steps are repeated; at 0, all of them."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if step and path.is_file() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue  # a line cut short by a kill
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
