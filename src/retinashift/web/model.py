"""The checkpoint, loaded while the page is already up, and one job at a time on it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retinashift.imaging.failures import explain

if TYPE_CHECKING:
    from retinashift.inference.pipeline import ResShiftPipeline

STAGES = ("waiting for the page", "loading torch and diffusers", "reading the checkpoint")
"""What happens before a checkpoint is ready, in order."""


class Busy(ValueError):
    """More jobs wait than are allowed."""


class Cancelled(BaseException):
    """The person at the page cancelled, or the page ends. No `Exception`: it is not the failure of a photograph."""


class Model:
    """Loads in a thread of its own; `status` and `share` say how far it is.

    Args:
        checkpoint: as `open_checkpoint` takes it; "" is the default one.
        device: as `choose_device` takes it.
        max_waiting: jobs that run or wait.
    """

    def __init__(self, checkpoint: str, device: str, max_waiting: int):
        self.checkpoint, self.device, self.max_waiting = checkpoint, device, max_waiting
        self.share = 0.0
        """Of the loading, 0..1."""
        self.status = STAGES[0]
        self._pipeline: ResShiftPipeline | None = None
        self._error = ""
        self._loaded, self._closing = threading.Event(), threading.Event()
        self._queue: deque[object] = deque()
        self._turn = threading.Condition()

    def start(self) -> None:
        threading.Thread(target=self._load, name="model", daemon=True).start()

    def _load(self) -> None:
        try:
            self._at(1)
            from diffusers.utils import logging

            logging.disable_progress_bar()
            from retinashift.inference.checkpoints import open_checkpoint
            from retinashift.inference.device import choose_device

            self._at(2)
            chosen = choose_device(self.device)
            pipeline = open_checkpoint(self.checkpoint)
            pipeline.set_progress_bar_config(disable=True)
            self._pipeline = pipeline.to(chosen)
            self.share = 1.0
            self.status = f"ready: {Path(self.checkpoint).name if self.checkpoint else 'shipped x4'}, {chosen}"
        except Exception as error:
            self._error = self.status = f"the checkpoint cannot be loaded: {explain(error).text}"
        finally:
            self._loaded.set()

    def _at(self, stage: int) -> None:
        self.status, self.share = STAGES[stage], stage / len(STAGES)

    @property
    def loaded(self) -> bool:
        """Whether loading has ended, well or not."""
        return self._loaded.is_set()

    def pipeline(self) -> ResShiftPipeline:
        """Waits until it is loaded. ValueError if that failed."""
        self._loaded.wait()
        if self._pipeline is None:
            raise ValueError(self._error or "the checkpoint cannot be loaded; the terminal of the page tells more")
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
    def turn(
        self, ticket: object, cancelled: threading.Event, tell: Callable[[str], None] = lambda text: None
    ) -> Iterator[None]:
        """Waits for the ticket's turn and for the checkpoint, and tells what it waits for.

        Raises:
            Cancelled: `cancelled` was set, or the page ends.
        """
        try:
            with self._turn:
                while first := self.before(ticket):
                    self.stop_if(cancelled)
                    tell(f"waiting for {first} job{'s' if first > 1 else ''} of others")
                    self._turn.wait(0.2)
            while not self._loaded.wait(0.2):
                self.stop_if(cancelled)
                tell(self.status)
            self.stop_if(cancelled)
            yield
        finally:
            self.leave(ticket)

    def stop_if(self, cancelled: threading.Event) -> None:
        """Cancelled if it is time to stop."""
        if cancelled.is_set() or self._closing.is_set():
            raise Cancelled

    def close(self, patience: float = 10.0) -> None:
        """End all jobs, and wait for them for so many seconds."""
        self._closing.set()
        end = time.monotonic() + patience
        with self._turn:
            while self._queue and time.monotonic() < end:
                self._turn.wait(0.1)
