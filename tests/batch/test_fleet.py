"""A fleet's workers, without a cluster and (marker `cluster`) with one: equal bytes, nothing lost, nothing twice."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from builders.command import in_a_fresh_process, retinashift
from retinashift.batch import fleet, upscale
from retinashift.batch.fleet import TRIES, Fleet
from retinashift.batch.jobs import BatchOptions, Job, plan_jobs
from retinashift.batch.record import append_line, left_to_do, run_record
from retinashift.batch.upscale import upscale_files
from retinashift.imaging.files import write_image
from retinashift.inference.pipeline import open_checkpoint


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "in" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8))
    (tmp_path / "in" / "2.png").write_bytes(b"no image")
    return tmp_path / "in"


class Tries:
    """The counter of a cluster, without one."""

    def __init__(self):
        counter = fleet._Tries()
        self.begin, self.end = SimpleNamespace(remote=counter.begin), SimpleNamespace(remote=counter.end)


@pytest.fixture
def by_a_worker(checkpoint, monkeypatch):
    """The rows of a worker for a block of all jobs; of another one each time it is called."""
    ray, tries = pytest.importorskip("ray"), Tries()
    monkeypatch.setattr(ray, "get", lambda value: value)

    def run(jobs, options=BatchOptions()):  # noqa: B008
        worker = fleet._Worker(Fleet(checkpoint=str(checkpoint)), options, tries)
        made = worker({"first": [0], "jobs": [zlib.compress(pickle.dumps(jobs))]})
        assert list(made["row"]) == list(range(len(jobs)))
        return [json.loads(line) for line in made["outcome"]]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_worker_writes_what_the_local_command_writes(by_a_worker, checkpoint, folder, tmp_path):
    made = by_a_worker(plan_jobs([folder], tmp_path / "out"))
    local = list(upscale_files(open_checkpoint(str(checkpoint)), plan_jobs([folder], tmp_path / "local")))
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    assert [row["status"] for row in made] == ["failed" if o.error else "written" for o in local]
    assert [row["provenance"] for row in made if "provenance" in row] == [vars(o.record) for o in local if o.record]


class Killed(BaseException):
    """Stands for the end of a process."""


def ends_at(monkeypatch, name: str) -> list:
    """Let workers end at a photograph of that name; returns its further rules, such as `clear` to stop it."""
    real, deadly = upscale.upscale_files, [name]

    def run(pipeline, jobs, *args, **kwargs):
        for job in jobs:
            if job.source.name in deadly:
                raise Killed
            yield from real(pipeline, [job], *args, **kwargs)

    monkeypatch.setattr(upscale, "upscale_files", run)
    return deadly


def test_jobs_of_a_worker_that_died_are_finished_and_none_is_done_twice(by_a_worker, folder, tmp_path, monkeypatch):
    jobs, deadly = plan_jobs([folder], tmp_path / "out"), ends_at(monkeypatch, "3.png")
    with pytest.raises(Killed):
        by_a_worker(jobs)
    deadly.clear()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(times) == 2
    again = by_a_worker(jobs)
    assert [row["status"] for row in again] == ["written", "written", "failed", "written", "written", "written"]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(contents(tmp_path / "out")) == 5


def test_a_photograph_that_ends_its_worker_again_and_again_is_given_up(by_a_worker, folder, tmp_path, monkeypatch):
    jobs = plan_jobs([folder], tmp_path / "out")
    ends_at(monkeypatch, "3.png")
    for _ in range(1 + TRIES):  # the first time in company
        with pytest.raises(Killed):
            by_a_worker(jobs)
    last = by_a_worker(jobs)
    assert [row["status"] for row in last] == ["written", "written", "failed", "failed", "written", "written"]
    assert "upscale it by itself" in last[3]["error"]


def test_what_a_log_says_is_done_is_left_out_unless_something_changed(folder, tmp_path, tiny_pipeline):
    jobs = plan_jobs([folder], tmp_path / "out")
    pipeline, options, log = tiny_pipeline(), BatchOptions(), tmp_path / "log.jsonl"
    for outcome in upscale_files(pipeline, jobs):
        append_line(log, outcome.line())
    record = run_record(pipeline, options)

    def left(**other):
        return [job.source.name for job in left_to_do(jobs, log, record, BatchOptions(**other))]

    assert left() == ["2.png"]  # which failed
    assert left(sidecar=True) == [f"{number}.png" for number in range(6)]
    (tmp_path / "out" / "5.png").unlink()
    write_image(folder / "4.png", np.zeros((5, 5), np.uint8), overwrite=True)
    assert left() == ["2.png", "4.png", "5.png"]
    other = run_record(tiny_pipeline(trained=False), options)
    assert len(left_to_do(jobs, log, other, options)) == 6


def test_every_job_is_handed_out_once_and_single_ones_last(tmp_path):
    jobs = [Job(tmp_path / "in" / f"{n}.png", tmp_path / f"{n}.png") for n in range(9_000)]
    blocks = [(block["first"][0], pickle.loads(zlib.decompress(block["jobs"][0]))) for block in fleet._blocks(jobs, 2)]
    assert [job for _, block in blocks for job in block] == jobs
    sizes = [len(block) for _, block in blocks]
    assert [first for first, _ in blocks] == [sum(sizes[:number]) for number in range(len(sizes))]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (200, 1)


def test_options_of_a_cluster_need_its_engine(folder, tmp_path):
    done = retinashift("upscale", folder, "-o", tmp_path / "out", "--address", "10.0.0.5:6379")
    assert "need --engine ray" in done.stderr


@pytest.mark.cluster
def test_a_local_cluster_gives_the_bytes_of_the_local_command_and_resumes(folder, checkpoint, tmp_path):
    pytest.importorskip("ray")
    log = tmp_path / "log.jsonl"
    common = ("upscale", folder, "--checkpoint", checkpoint, "--sidecar")
    local = in_a_fresh_process(*common, "-o", tmp_path / "local")
    ray = (*common, "-o", tmp_path / "out", "--engine", "ray", "--workers", "2", "--log", log)
    done = in_a_fresh_process(*ray)
    assert (local.returncode, done.returncode) == (1, 1), done.stderr
    assert done.stderr.count("failed: ") == 1
    assert {n: d for n, d in contents(tmp_path / "out").items() if n.endswith("png")} == {
        n: d for n, d in contents(tmp_path / "local").items() if n.endswith("png")
    }
    assert len(log.read_text().splitlines()) == 6
    again = in_a_fresh_process(*ray, "--resume")
    assert "0 of 6 written" in again.stderr
    assert "5 were there already" in again.stderr


@pytest.mark.cluster
def test_a_killed_worker_costs_what_it_held(folder, checkpoint, tmp_path):
    pytest.importorskip("ray")
    for number in range(6, 40):
        write_image(folder / f"{number}.png", np.full((48, 48, 3), number, np.uint8))
    jobs = plan_jobs([folder], tmp_path / "out")
    killed, outcomes = 0, []
    for outcome in fleet.upscale_fleet(jobs, BatchOptions(), Fleet(workers=2, checkpoint=str(checkpoint))):
        outcomes.append(outcome)
        if len(outcomes) in (3, 10):
            victims = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]
            if victims:
                os.kill(victims[0].pid, signal.SIGKILL)
                killed += 1
    assert killed == 2
    assert sorted(o.job.source.name for o in outcomes) == sorted(job.source.name for job in jobs)
    assert [o.job.source.name for o in outcomes if o.error] == ["2.png"]
    assert len(contents(tmp_path / "out")) == 39


@pytest.mark.cluster
def test_a_machine_that_dies_costs_what_it_held(folder, checkpoint, tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    for number in range(6, 40):
        write_image(folder / f"{number}.png", np.full((48, 48, 3), number, np.uint8))
    jobs, outcomes = plan_jobs([folder], tmp_path / "out"), []
    machine = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        other = cluster.add_node(**machine)
        chosen = Fleet(address=cluster.address, workers=2, checkpoint=str(checkpoint))
        for outcome in fleet.upscale_fleet(jobs, BatchOptions(), chosen):
            outcomes.append(outcome)
            if len(outcomes) == 3:
                cluster.remove_node(other, allow_graceful=False)
    finally:
        cluster.shutdown()
    assert sorted(o.job.source.name for o in outcomes) == sorted(job.source.name for job in jobs)
    assert [o.job.source.name for o in outcomes if o.error] == ["2.png"]
    assert len(contents(tmp_path / "out")) == 39


@pytest.mark.cluster
def test_ctrl_c_ends_a_fleet_without_half_a_file_or_a_process(folder, checkpoint, tmp_path):
    pytest.importorskip("ray")
    log = tmp_path / "log.jsonl"
    given = ("upscale", folder, "-o", tmp_path / "out", "--engine", "ray", "--checkpoint", checkpoint, "--log", log)
    command = [sys.executable, "-m", "retinashift", *map(str, given)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not log.exists():
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode in (1, 130), said  # 1: it was done before the signal came
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert all(path.suffix == ".png" for path in (tmp_path / "out").iterdir())
