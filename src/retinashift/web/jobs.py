"""Jobs of the page: one at a time, in the order in which they came; results stay in memory until they are forgotten.

Nothing is written to disk, so that no photograph stays behind whatever ends the process.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

KEPT_JOBS = 32
"""Finished jobs that are kept; the oldest are forgotten first."""
KEPT_SECONDS = 3600.0
"""How long a finished job is kept that nobody asks for."""

logger = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed", "cancelled"]
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


@dataclass
class Job:
    """Work that was asked for. `work` takes a function for its progress, which raises `Cancelled`."""

    work: Callable[[Progress], list[Photo]]
    held: int
    """Bytes of what was uploaded."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    state: State = "waiting"
    progress: float = 0.0
    text: str = "waiting"
    photos: list[Photo] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    seen: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """Bytes held for the job."""
        return self.held + sum(len(data) for photo in self.photos for data in photo.files.values())


class JobQueue:
    """One thread that does the jobs.

    Args:
        max_waiting: jobs that run or wait.
        max_stored: bytes of uploads and results together.
    """

    def __init__(self, max_waiting: int, max_stored: int):
        self.max_waiting, self.max_stored = max_waiting, max_stored
        self.jobs: dict[str, Job] = {}
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self.thread.start()

    def submit(self, work: Callable[[Progress], list[Photo]], held: int) -> Job:
        """Queue a job. Raises `Busy` where too many wait or too much is held."""
        with self.changed:
            self._forget_old()
            waiting = sum(not job.ended.is_set() for job in self.jobs.values())
            if waiting >= self.max_waiting:
                raise Busy(f"{waiting} jobs are waiting already; try again later")
            if sum(job.nbytes for job in self.jobs.values()) + held > self.max_stored:
                raise Busy("the page holds as many bytes as it may; close pages that are no longer needed")
            job = Job(work, held)
            self.jobs[job.id] = job
            self.changed.notify_all()
            return job

    def get(self, id: str) -> Job | None:
        """The job of that id, or None."""
        job = self.jobs.get(id)
        if job is not None:
            job.seen = time.monotonic()
        return job

    def before(self, job: Job) -> int:
        """How many unfinished jobs come first."""
        unfinished = [other for other in self.jobs.copy().values() if not other.ended.is_set()]
        return unfinished.index(job) if job in unfinished else 0

    def forget(self, id: str) -> None:
        """Cancel a job and drop what is held of it."""
        with self.changed:
            job = self.jobs.pop(id, None)
            if job is not None:
                job.cancelled.set()
                job.photos = []
                if job.state == "waiting":
                    job.state = "cancelled"
                    job.ended.set()

    def close(self, patience: float = 10.0) -> None:
        """Cancel everything, and wait up to `patience` seconds for the running job."""
        with self.changed:
            self.closing = True
            for job in self.jobs.values():
                job.cancelled.set()
            self.jobs.clear()
            self.changed.notify_all()
        self.thread.join(patience)

    def _forget_old(self) -> None:
        ended = [job for job in self.jobs.values() if job.ended.is_set()]
        stale = [job for job in ended if time.monotonic() - job.seen > KEPT_SECONDS]
        for job in {job.id: job for job in [*ended[: -KEPT_JOBS or None], *stale]}.values():
            self.jobs.pop(job.id, None)

    def _next(self) -> Job | None:
        with self.changed:
            while not self.closing:
                for job in self.jobs.values():
                    if not job.ended.is_set():
                        return job
                self.changed.wait()
        return None

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)

    def _do(self, job: Job) -> None:
        def progress(share: float, text: str) -> None:
            if job.cancelled.is_set():
                raise Cancelled
            job.progress, job.text = share, text

        try:
            progress(0.0, "starting")
            job.state = "running"
            job.photos = job.work(progress)
            job.state, job.progress, job.text = "done", 1.0, "done"
        except Cancelled:
            job.state, job.text = "cancelled", "cancelled"
        except ValueError as error:
            job.state, job.text = "failed", " ".join(str(error).split())
        except Exception:  # the reason belongs in the terminal, not on the page
            logger.exception("a job failed")
            job.state, job.text = "failed", "internal error; the terminal of the page says more"
        finally:
            job.ended.set()
