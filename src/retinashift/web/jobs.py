"""Jobs of the page: one at a time, in the order in which they came; results stay in memory until they are forgotten.

Nothing is written to disk, so that no photograph stays behind whatever ends the process.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Literal

from retinashift.imaging.failures import explain

MAX_WAITING = 16  # jobs that run or wait
MAX_STORED = 4 * 2**30  # bytes of memory that uploads and results together may take
KEPT_JOBS, KEPT_SECONDS = 256, 3600.0
"""Finished jobs that are kept, the oldest forgotten first, and for how long after they were asked for."""
SWEEP_SECONDS, PATIENCE_SECONDS = 60.0, 10.0
"""Between two looks for finished jobs to forget, and to wait for the running job at the end."""

logger = logging.getLogger(__name__)
Progress = Callable[[float], None]
Result = tuple[dict[str, Any], dict[str, bytes]]  # facts for the viewer, and files by name


class Busy(Exception):
    """More jobs or bytes are held than allowed; the message says which."""


class Missing(LookupError):
    """A job or file that is not there."""


@dataclass(eq=False)
class Job:
    """Work on one photograph. `work` takes a function for its progress, which raises `CancelledError`."""

    work: Callable[[Progress], Result]
    held: int  # bytes of what was uploaded
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    progress: float = 0.0
    text: str = "waiting"
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False
    began: float = field(default_factory=time.monotonic)

    def tell(self, share: float) -> None:
        """How far the work is. Raises `CancelledError` where nobody wants it any more."""
        if self.cancelled:
            raise CancelledError
        self.state, self.progress, self.text = "running", share, f"{share:.0%}" if share else "loading the checkpoint"

    def run(self) -> None:
        """Do the work; what it raises becomes the job's state and text."""
        try:
            self.tell(0.0)
            self.facts, self.files = self.work(self.tell)
            self.state, self.progress, self.text = "done", 1.0, "done"
        except CancelledError:
            self.state, self.text = "cancelled", "cancelled"
        except Exception as error:
            failure = explain(error)
            self.state, self.text = "failed", failure.text
            if failure.internal:  # the reason belongs in the terminal, not on the page
                logger.exception("a job failed")
                self.text = "internal error; the terminal of the page says more"
        self.ended.set()


class JobQueue:
    """One thread that does the jobs."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.todo: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self.thread.start()

    def submit(self, work: Callable[[Progress], Result], held: int) -> Job:
        """Queue a job; for one thread. Raises `Busy` where too many wait or too much is held."""
        self._sweep()
        if (waiting := self.unfinished()) >= MAX_WAITING:
            raise Busy(f"{waiting} jobs are waiting already; try again later")
        stored = sum(job.held + sum(map(len, job.files.values())) for job in list(self.jobs.values()))
        if stored + held > MAX_STORED:
            raise Busy("the page holds as many bytes as it may; close pages that are no longer needed")
        job = Job(work, held)
        self.jobs[job.id] = job
        self.todo.put(job.run)
        return job

    def get(self, id: str) -> Job:
        """The job of that id. Raises `Missing`."""
        if job := self.jobs.get(id):
            return job
        raise Missing("there is no such job (results end with the page)")

    def unfinished(self, before: Job | None = None) -> int:
        """How many jobs run or wait: all, or those before one."""
        jobs = list(self.jobs.values())
        return sum(not job.ended.is_set() for job in jobs[: jobs.index(before) if before in jobs else None])

    def forget(self, id: str) -> None:
        """Cancel a job and drop what is held of it."""
        if job := self.jobs.pop(id, None):
            job.cancelled, job.facts, job.files = True, {}, {}

    def close(self) -> None:
        """Cancel everything, and wait a while for the running job."""
        for id in list(self.jobs):
            self.forget(id)
        self.todo.put(None)
        self.thread.join(PATIENCE_SECONDS)

    def _sweep(self) -> None:
        ended = [job for job in list(self.jobs.values()) if job.ended.is_set()]
        for job in ended:
            if job in ended[:-KEPT_JOBS] or time.monotonic() - job.began > KEPT_SECONDS:
                self.forget(job.id)

    def _run(self) -> None:
        work: Callable[[], Any] | None = self._sweep
        while work is not None:
            with suppress(Exception):  # of what is no job: the first job meets it again and tells it
                work()
            work = self._sweep  # a job that is forgotten while the thread waits is freed
            with suppress(Empty):
                work = self.todo.get(timeout=SWEEP_SECONDS)
