"""The files of the manual's page on many machines: each is parsed, and the Slurm script runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from builders.command import in_a_fresh_process, retinashift
from builders.store import store
from retinashift.batch import places
from retinashift.batch.jobs import plan_jobs
from retinashift.imaging.files import write_image

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
SLURM, JOB, CLUSTER = (block for _, block in re.findall(r"```(bash|yaml)\n(.*?)```", PAGE, re.DOTALL))


def test_a_task_of_the_slurm_array_does_its_part(tmp_path, checkpoint):
    for number in range(5):
        write_image(_folder(tmp_path / "in") / f"{number}.png", np.full((6, 6, 3), 40 * number, np.uint8))
    mine = {job.source.name for job in plan_jobs([tmp_path / "in"], tmp_path / "out", shard=(2, 2))}
    command = _folder(tmp_path / "bin") / "retinashift"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m retinashift "$@" --checkpoint "{checkpoint}"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{command.parent}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_ID": "2",
        "PHOTOGRAPHS": str(tmp_path / "in"), "RESULTS": str(tmp_path / "out"), "LOGS": str(_folder(tmp_path / "logs")),
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", SLURM], env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "logs" / "2.jsonl").read_text().splitlines()]
    assert 0 < len(mine) < 5
    assert {Path(row["source"]).name for row in rows} == {path.name for path in (tmp_path / "out").iterdir()} == mine


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The page's bucket and folders, with the tests' working folder in `tmp_path`."""
    pytest.importorskip("s3fs")
    monkeypatch.chdir(tmp_path)
    with store() as server:
        places.open_system.cache_clear()
        for name in ("1_left.png", "1_right.png"):
            write_image(_folder(Path("photographs")) / name, np.full((6, 6, 3), 90, np.uint8))
            server.put("screening", f"2026/{name}", Path("photographs", name).read_bytes(), public=True)
        server.backend.create_bucket("screening-x4", "us-east-1")
        yield server
    places.open_system.cache_clear()


def commands(*with_words: str) -> list[list[str]]:
    """The page's commands that hold one of these words."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    chosen = [line for line in lines if line.startswith("retinashift ") and any(word in line for word in with_words)]
    return [shlex.split(line)[1:] for line in chosen]


def test_the_commands_of_the_page_run(bucket, checkpoint):
    address = f"{os.environ['AWS_ENDPOINT_URL']}/screening/2026/1_left.png"
    local = [words for words in commands("upscale") if "ray" not in words]
    assert len(local) == 3
    for words in local:
        words = [address if word.startswith("https://") else word for word in words]
        done = retinashift(*words, "--checkpoint", checkpoint)
        assert done.returncode == 0, (words, done.stderr)
    assert set(bucket.files("screening-x4")) == {"2026/1_left.png", "2026/1_right.png"}
    assert [path.name for path in Path("left").iterdir()] == ["1_left.png"]
    assert [path.name for path in Path("out").iterdir()] == ["1_left.png"]
    Path("outcomes.jsonl").rename(_folder(Path("logs")) / "1.jsonl")
    ((command, *_, option, out),) = commands("merge-logs")
    assert retinashift(command, "logs/1.jsonl", option, out).returncode == 0
    assert len(Path(out).read_text().splitlines()) == 2


@pytest.mark.cluster
def test_the_ray_commands_of_the_page_run(bucket, checkpoint):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    alone, together = commands("--engine ray")
    done = in_a_fresh_process(*alone, "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["1_left.png", "1_right.png"]
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        words = [cluster.address if word == "10.0.0.5:6379" else word for word in together]
        done = in_a_fresh_process(*words, "--checkpoint", checkpoint)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    assert set(bucket.files("screening-x4")) == {"2026/1_left.png", "2026/1_right.png"}


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def test_the_kubernetes_job_counts_its_parts_from_one():
    job = yaml.safe_load(JOB)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (line,) = container["args"]
    assert job["spec"]["completionMode"] == "Indexed"
    count = job["spec"]["completions"]
    script = line.replace("retinashift", "echo")
    for index in (0, count - 1):
        said = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
        ).stdout
        assert f"--shard {index + 1}/{count} --log /logs/{index}.jsonl" in said


def test_the_ray_cluster_names_its_node_types():
    cluster = yaml.safe_load(CLUSTER)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    workers = [kind for kind in cluster["available_node_types"].values() if "min_workers" in kind]
    assert sum(kind["min_workers"] for kind in workers) <= cluster["max_workers"]
