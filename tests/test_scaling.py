"""The files of the manual's page on many machines: each is parsed, and the Slurm script runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

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
