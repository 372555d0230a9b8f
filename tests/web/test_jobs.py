"""The queue: one job at a time, in order, bounded, cancellable, and forgotten when asked."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from retinashift.web import jobs
from retinashift.web.jobs import Busy, JobQueue, Missing


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(jobs, "MAX_WAITING", 3)
    monkeypatch.setattr(jobs, "MAX_STORED", 1000)
    queue = JobQueue()
    yield queue
    queue.close()


def held(gate):
    def work(progress):
        gate.wait(60)
        progress(0.5)
        return {"saved": "eye_x4.png"}, {"eye_x4.png": b"12345"}

    return work


def test_jobs_run_in_their_order_and_keep_their_results(queue):
    done = []
    for number in range(3):
        job = queue.submit(lambda progress, number=number: (done.append(number) or {"number": number}, {}), 0)
    assert job.ended.wait(60)
    assert done == [0, 1, 2]
    assert (job.state, job.progress, job.facts) == ("done", 1.0, {"number": 2})


def test_more_jobs_than_may_wait_and_more_bytes_than_may_be_held_are_refused(queue):
    gate = threading.Event()
    first = queue.submit(held(gate), 0)
    second = queue.submit(held(gate), 0)
    assert (queue.unfinished(first), queue.unfinished(second), queue.unfinished()) == (0, 1, 2)
    with pytest.raises(Busy, match="bytes"):
        queue.submit(held(gate), 1001)
    queue.submit(held(gate), 0)
    with pytest.raises(Busy, match="3 jobs are waiting"):
        queue.submit(held(gate), 0)
    gate.set()


def test_a_job_is_cancelled_at_its_next_progress_and_what_is_held_of_it_goes(queue):
    gate = threading.Event()
    job = queue.submit(held(gate), 100)
    queue.forget(job.id)
    gate.set()
    assert job.ended.wait(60)
    assert job.state == "cancelled"
    with pytest.raises(Missing):
        queue.get(job.id)
    assert job.files == {}


def test_what_a_forgotten_job_holds_is_freed_while_the_queue_waits(queue):
    class Files(dict):
        """Unlike a plain one, it can be watched."""

    made = [Files({"eye.png": b"photograph"})]
    freed = weakref.ref(made[0])
    job = queue.submit(lambda progress, made=made: ({}, made.pop()), 10)
    assert job.ended.wait(60)
    assert freed() is not None
    queue.forget(job.id)
    del job
    settled = queue.submit(lambda progress: ({}, {}), 0)  # the thread has turned to something else
    assert settled.ended.wait(60)
    gc.collect()
    assert freed() is None


def test_an_expected_error_is_told_in_one_line_and_another_is_kept_from_the_page(queue, caplog):
    def expected(progress):
        raise ValueError("a reason\nin two lines")

    def foreign(progress):
        raise KeyError("/secret/path")

    first, second = queue.submit(expected, 0), queue.submit(foreign, 0)
    assert second.ended.wait(60)
    assert (first.state, first.text) == ("failed", "a reason in two lines")
    assert (second.state, "secret" in second.text) == ("failed", False)
    assert "KeyError" in caplog.text


def test_finished_jobs_beyond_those_that_are_kept_are_forgotten(queue, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT_JOBS", 2)
    made = []
    for _ in range(4):
        made.append(queue.submit(lambda progress: ({}, {}), 0))
        assert made[-1].ended.wait(60)
    queue.submit(lambda progress: ({}, {}), 0)
    assert [job.id in queue.jobs for job in made] == [False, False, True, True]


def test_a_finished_job_is_forgotten_in_time_though_nobody_asks(monkeypatch):
    monkeypatch.setattr(jobs, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(jobs, "KEPT_SECONDS", 0.0)
    queue = JobQueue()
    forgotten = threading.Event()
    monkeypatch.setattr(queue, "forget", lambda id: (JobQueue.forget(queue, id), forgotten.set()))
    queue.submit(lambda progress: ({}, {}), 0)
    assert forgotten.wait(60)
    assert queue.jobs == {}
    queue.close()
