"""Jobs of the page: one at a time, in the order in which they came; results stay in memory until they are forgotten.

Nothing is written to disk, so that no photograph stays behind whatever ends the process.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

KEPT_JOBS = 32
"""Finished jobs that are kept; the oldest are forgotten first."""
KEPT_SECONDS = 3600.0
"""How long a finished job is kept that nobody asks for."""

logger = logging.getLogger(__name__)
Progress = Callable[[float, str], None]


class Busy(Exception):
    """More jobs or bytes are held than allowed; the message says which."""


class Cancelled(Exception):
    """The work was cancelled, or the page ends."""


@dataclass
class Photo:
    """What became of one photograph: facts for the viewer, and files by name; `error` is "" if all went well."""

    name: str
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(eq=False)
class Job:
    """Work that was asked for. `work` takes a function for its progress, which raises `Cancelled`."""

    work: Callable[[Progress], list[Photo]]
    held: int
    """Bytes of what was uploaded."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    progress: float = 0.0
    text: str = "waiting"
    photos: list[Photo] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False
    seen: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """Bytes held for the job."""
        return self.held + sum(len(data) for photo in self.photos for data in photo.files.values())

    def tell(self, share: float, text: str) -> None:
        """How far the work is. Raises `Cancelled` where nobody wants it any more."""
        if self.cancelled:
            raise Cancelled
        self.progress, self.text = share, text

    def run(self) -> None:
        """Do the work; what it raises becomes the job's state and text."""
        try:
            self.tell(0.0, "starting")
            self.state = "running"
            self.photos = self.work(self.tell)
            self.state, self.progress, self.text = "done", 1.0, "done"
        except Cancelled:
            self.state, self.text = "cancelled", "cancelled"
        except ValueError as error:
            self.state, self.text = "failed", " ".join(str(error).split())
        except Exception:  # the reason belongs in the terminal, not on the page
            logger.exception("a job failed")
            self.state, self.text = "failed", "internal error; the terminal of the page says more"
        self.ended.set()


class JobQueue:
    """One thread that does the jobs; a limit of `max_waiting` jobs that run or wait, and `max_stored` bytes held."""

    def __init__(self, max_waiting: int, max_stored: int):
        self.max_waiting, self.max_stored = max_waiting, max_stored
        self.jobs: dict[str, Job] = {}
        self.lock = threading.Lock()
        self.todo: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self.thread.start()

    def submit(self, work: Callable[[Progress], list[Photo]], held: int) -> Job:
        """Queue a job. Raises `Busy` where too many wait or too much is held."""
        with self.lock:
            ended = [job for job in self.jobs.values() if job.ended.is_set()]
            for job in ended:
                if job in ended[: -KEPT_JOBS or None] or time.monotonic() - job.seen > KEPT_SECONDS:
                    del self.jobs[job.id]
            if (waiting := self.unfinished()) >= self.max_waiting:
                raise Busy(f"{waiting} jobs are waiting already; try again later")
            if sum(job.nbytes for job in self.jobs.values()) + held > self.max_stored:
                raise Busy("the page holds as many bytes as it may; close pages that are no longer needed")
            job = Job(work, held)
            self.jobs[job.id] = job
        self.todo.put(job.run)
        return job

    def get(self, id: str) -> Job | None:
        """The job of that id, or None."""
        if job := self.jobs.get(id):
            job.seen = time.monotonic()
        return job

    def unfinished(self, before: Job | None = None) -> int:
        """How many jobs run or wait: all, or those before one."""
        jobs = list(self.jobs.copy().values())
        return sum(not job.ended.is_set() for job in jobs[: jobs.index(before) if before in jobs else None])

    def forget(self, id: str) -> None:
        """Cancel a job and drop what is held of it."""
        with self.lock:
            job = self.jobs.pop(id, None)
        if job is not None:
            job.cancelled, job.photos = True, []
            if job.state == "waiting":
                job.state = "cancelled"
                job.ended.set()

    def close(self, patience: float = 10.0) -> None:
        """Cancel everything, and wait up to `patience` seconds for the running job."""
        for id in list(self.jobs):
            self.forget(id)
        self.todo.put(None)
        self.thread.join(patience)

    def _run(self) -> None:
        while (work := self.todo.get()) is not None:
            with suppress(Exception):  # of what is no job: the first job meets it again and tells it
                work()
            del work  # a job that is forgotten while the thread waits is freed
