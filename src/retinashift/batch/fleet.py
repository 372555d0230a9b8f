"""Files in, files out, by the workers of a Ray cluster: Ray Data hands out the jobs and replaces workers that die."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retinashift.batch.jobs import BatchOptions, Job
from retinashift.batch.record import Outcome, run_record
from retinashift.batch.upscale import upscale_files
from retinashift.imaging.failures import one_line
from retinashift.inference.checkpoints import open_checkpoint
from retinashift.inference.memory import choose_device

_TRIES = 3
"""Rounds in which a photograph that ended its worker among others is tried by itself."""
_LARGEST_BLOCK = 200
"""Jobs that are handed to a worker at a time, at most."""
_STORE_BYTES = 256 * 2**20
"""Shared memory of a local cluster; it holds lists of files, no pixels."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The cluster, and what each of its workers has.

    Raises:
        ValueError: fewer than no workers or GPUs.
    """

    address: str = ""
    """Of a running cluster, as `ray.init` takes it; "" starts one on this machine that others cannot reach."""
    workers: int = 0
    """Processes, each with its own checkpoint; 0 is one for each GPU, or one for every four cores."""
    gpus: float | None = None
    """GPUs of a worker, which may be a part of one; None is 1 where the cluster has any."""
    checkpoint: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.workers < 0 or (self.gpus or 0) < 0:
            raise ValueError(f"{self.workers} workers with {self.gpus} GPUs; numbers from 0 are needed")


def upscale_fleet(
    jobs: Sequence[Job], options: BatchOptions | None = None, fleet: Fleet | None = None
) -> Generator[Outcome, None, None]:
    """Run the jobs on a cluster, and yield the outcome of each as it is done, in any order.

    A photograph that fails, or that ends its worker again and again, is an outcome. When a worker or its machine dies,
    what it held is done again, one by one; results that are there already are kept. Credentials of stores are not
    handed to the workers: each reads its own environment.

    Args:
        jobs: of `plan_jobs`; local paths must be on a file system that all machines share.
        options: defaults to `BatchOptions()`.
        fleet: defaults to `Fleet()`.

    Raises:
        ImportError: Ray is missing.
        OSError: the cluster cannot be reached, or no worker could begin.
    """
    options, fleet = options or BatchOptions(), fleet or Fleet()
    if not jobs:
        return
    ray = _start(fleet.address)
    done = np.zeros(len(jobs), bool)
    reason = f"its worker ended {1 + _TRIES} times, perhaps for want of memory; upscale it by itself"
    try:
        for attempt in range(1 + _TRIES):
            rows = np.flatnonzero(~done)
            try:
                for row, values in _run(ray, jobs, rows, options, fleet, alone=attempt > 0):
                    done[row] = True
                    yield Outcome.parse(jobs[row], values)
            except ray.exceptions.RayError as error:  # such as results lost with their machine
                reason = f"the cluster ended the work: {one_line(str(error))[-300:]}"
                if not done.any():
                    raise OSError(reason) from None
            if done.all():
                return
        yield from (Outcome(jobs[int(row)], reason) for row in np.flatnonzero(~done))
    finally:
        ray.shutdown()


def _run(
    ray: Any, jobs: Sequence[Job], rows: np.ndarray, options: BatchOptions, fleet: Fleet, alone: bool
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Number and outcome of each job of which there is one; a worker that dies leaves those that it held without.

    Args:
        alone: hand out one job at a time, so that no other is lost with it.
    """
    import pyarrow as pa

    have = ray.cluster_resources()
    gpus = fleet.gpus if fleet.gpus is not None else float(have.get("GPU", 0) >= 1 and fleet.device != "cpu")
    cores = int(have.get("CPU", 1))
    workers = fleet.workers or int(have.get("GPU", 0) / gpus if gpus else max(1, cores // 4))
    needs: dict[str, Any] = {"num_cpus": max(1, cores // workers), "num_gpus": gpus}
    if options.sampling.memory:
        needs["memory"] = options.sampling.memory
    size = 1 if alone else min(_LARGEST_BLOCK, max(1, len(rows) // (10 * workers)))
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    tables = [
        pa.table({"rows": [block.tolist()], "jobs": [pickle.dumps([jobs[row] for row in block])]}) for block in blocks
    ]
    resumed = replace(options, resume=True) if alone else options  # a worker that died may have written some
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1 if alone else None
    )
    dataset = ray.data.from_arrow(tables).map_batches(
        _Worker, fn_constructor_args=(fleet, resumed, options.resume), compute=pool, batch_size=None, **needs,
        ray_remote_args_fn=lambda: {"max_task_retries": 0},  # by Ray, without an end
    )  # fmt: skip
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        for row, values in zip(batch["row"], batch["outcome"], strict=True):
            yield int(row), json.loads(values)


def _start(address: str) -> Any:
    """Ray, connected to a cluster or to a new one that only this machine reaches; without usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads these when it is imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name, it makes any system use 127.0.0.1
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError("--engine ray needs Ray: pip install -c constraints.txt -e '.[fleet]'") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what a worker held when it died is done again
    local = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(**({"address": address} if address else local), log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of gRPC, of sockets, or of its own
        raise OSError(f"no Ray cluster at {address or 'this machine'}: {one_line(str(error))[:300]}") from None
    return ray


class _Worker:
    """One process of the fleet, with its own checkpoint."""

    def __init__(self, fleet: Fleet, options: BatchOptions, resumes: bool) -> None:
        self.pipeline = open_checkpoint(fleet.checkpoint).to(choose_device(fleet.device))
        self.options, self.resumes = options, resumes
        self.record = run_record(self.pipeline, options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The outcomes of a block of jobs. One that this run has finished before counts as written."""
        jobs = pickle.loads(batch["jobs"][0])
        outcomes = upscale_files(self.pipeline, jobs, self.options, record=self.record)
        lines = [replace(one, skipped=one.skipped and self.resumes).line() for one in outcomes]
        return {"row": batch["rows"][0], "outcome": lines}
