"""The checkpoint, loaded while the page is already up, and one job at a time on it."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retinashift.inference.pipeline import ResShiftPipeline


class Busy(ValueError):
    """More jobs wait than are allowed."""


class Model:
    """Loads in a thread of its own; `status` says how far it is.

    Args:
        checkpoint: folder; "" is the shipped one.
        device: as `choose_device` takes it.
        max_waiting: jobs that run or wait.
    """

    def __init__(self, checkpoint: str, device: str, max_waiting: int):
        self.checkpoint, self.device, self.max_waiting = checkpoint, device, max_waiting
        self.status = "loading the model"
        self.digest = ""
        self._pipeline: ResShiftPipeline | None = None
        self._error = ""
        self._loaded = threading.Event()
        self._queue: deque[object] = deque()
        self._turn = threading.Condition()

    def start(self) -> None:
        threading.Thread(target=self._load, name="model", daemon=True).start()

    def _load(self) -> None:
        try:
            from diffusers.utils import logging

            logging.disable_progress_bar()
            from retinashift.inference.device import choose_device
            from retinashift.inference.pipeline import ResShiftPipeline

            chosen = choose_device(self.device)
            folder = self.checkpoint or str(files("retinashift") / "weights" / "x4")
            self._pipeline = ResShiftPipeline.from_pretrained(folder).to(chosen)
            self._pipeline.set_progress_bar_config(disable=True)
            self.digest = _digest(Path(folder))
            self.status = f"ready: {'shipped x4' if not self.checkpoint else Path(folder).name}, {chosen}"
        except (ValueError, OSError) as error:
            self._error = self.status = f"the model cannot be loaded: {error}"
        finally:
            self._loaded.set()

    @property
    def loaded(self) -> bool:
        return self._loaded.is_set()

    def pipeline(self) -> ResShiftPipeline:
        """Waits until it is loaded. ValueError if that failed."""
        self._loaded.wait()
        if self._pipeline is None:
            raise ValueError(self._error or "the model cannot be loaded")
        return self._pipeline

    def join(self) -> object:
        """A ticket at the end of the queue. Busy if the queue is full."""
        with self._turn:
            if len(self._queue) >= self.max_waiting:
                raise Busy(f"{len(self._queue)} jobs are waiting already; try again later")
            ticket = object()
            self._queue.append(ticket)
            return ticket

    def leave(self, ticket: object) -> None:
        with self._turn:
            self._queue.remove(ticket)
            self._turn.notify_all()

    def before(self, ticket: object) -> int:
        """Jobs that come first; 0 for the one whose turn it is."""
        return self._queue.index(ticket)

    @contextmanager
    def turn(self, ticket: object, cancelled: threading.Event) -> Iterator[None]:
        """Waits for the ticket's turn, or until the job is cancelled."""
        try:
            with self._turn:
                while self.before(ticket) and not cancelled.is_set():
                    self._turn.wait(0.2)
            yield
        finally:
            self.leave(ticket)


def _digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a checkpoint's weights and settings."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")):
        total.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return total.hexdigest()
