"""Files in, files out, by the workers of a Ray cluster: Ray Data hands out the jobs and replaces workers that die."""

import json
import logging
import os
import pickle
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from retinashift.batch.jobs import BatchOptions, Job
from retinashift.batch.record import Outcome, run_record
from retinashift.imaging.failures import one_line
from retinashift.imaging.files import remove_stale_temporaries
from retinashift.inference import import_diffusers

TRIES = 5
"""Workers that one photograph may end by itself before it is given up."""
_LARGEST_BLOCK, _MOST_BLOCKS = 200, 1000
"""Jobs that are handed to a worker at a time, at most, unless there would be more blocks: Ray keeps 40 KB for each."""
_ENDING_SECONDS = 20.0
"""Within which the processes of a local cluster are expected to end."""
_STORE_BYTES = 256 * 2**20
"""Shared memory of a local cluster; it holds lists of files, no pixels."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The cluster, and what each of its workers has."""

    address: str = ""
    """Of a running cluster, as `ray.init` takes it; "" starts one on this machine that others cannot reach."""
    workers: int = 0
    """Processes, each with its own checkpoint; 0 is one for each GPU, or one for every four cores."""
    gpus: float | None = None
    """GPUs of a worker, which may be a part of one; None is 1 where the cluster has any."""
    checkpoint: str = ""
    device: str = "auto"


def upscale_fleet(jobs: Sequence[Job], options: BatchOptions, fleet: Fleet) -> Generator[Outcome, None, None]:
    """Run the jobs on a cluster, and yield the outcome of each as it is done, in any order.

    A photograph that fails, or that ends its worker again and again, is an outcome. When a worker or its machine dies,
    what it held is done again, one by one; results that are there already are kept. Credentials of stores are not
    handed to the workers: each reads its own environment. Local paths must be on a file system that all machines share.

    Raises:
        ImportError: Ray is missing.
        OSError: the cluster cannot be reached, or ended the work.
    """
    if not jobs:
        return
    others = set(psutil.Process().children(recursive=True))
    ray = _start(fleet.address)
    import pyarrow as pa

    try:
        have = ray.cluster_resources()
        gpus = fleet.gpus if fleet.gpus is not None else float(have.get("GPU", 0) >= 1 and fleet.device != "cpu")
        cores = int(have.get("CPU", 1))
        workers = fleet.workers or int(have.get("GPU", 0) / gpus if gpus else max(1, cores // 4))
        needs: dict[str, Any] = {"num_cpus": max(1, cores // workers), "num_gpus": gpus}
        if options.sampling.memory:
            needs["memory"] = options.sampling.memory
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries).remote()
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers)
        dataset = ray.data.from_arrow([pa.table(block) for block in _blocks(jobs, workers)]).map_batches(
            _Worker, fn_constructor_args=(fleet, options, tries), compute=pool, batch_size=None, **needs
        )
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for row, line in zip(batch["row"], batch["outcome"], strict=True):
                yield Outcome.parse(jobs[int(row)], json.loads(line))
    except ray.exceptions.RayError as error:
        raise OSError(f"the cluster ended the work: {one_line(str(error))[-300:]}") from None
    finally:
        own = set() if fleet.address else set(psutil.Process().children(recursive=True)) - others
        ray.shutdown()
        ended = {process.pid for process in psutil.wait_procs(own, timeout=_ENDING_SECONDS)[0]}
        for folder in {job.target.parent for job in jobs if isinstance(job.target, Path)} if ended else ():
            remove_stale_temporaries(folder, ended)  # of workers that were ended while they wrote


def _start(address: str) -> Any:
    """Ray, connected to a cluster or to a new one that only this machine reaches; without usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads these when it is imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as this process; by default workers yield to all others
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
    local = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(**({"address": address} if address else local), log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of gRPC, of sockets, or of its own
        raise OSError(f"no Ray cluster at {address or 'this machine'}: {one_line(str(error))[:300]}") from None
    return ray


def _blocks(jobs: Sequence[Job], workers: int) -> Iterator[dict[str, list[Any]]]:
    """Columns of one row for each block: smaller ones at the end, so that workers end at about the same time."""
    start, largest = 0, max(_LARGEST_BLOCK, len(jobs) // _MOST_BLOCKS)
    while left := len(jobs) - start:
        size = min(largest, max(1, left // (10 * workers)))
        # names of a block resemble each other: a million of them would fill the shared memory
        yield {"first": [start], "jobs": [zlib.compress(pickle.dumps(jobs[start : start + size]), 1)]}
        start += size


class _Tries:
    """How often work of each name has begun and not ended; an actor of the cluster, which outlives the workers."""

    def __init__(self) -> None:
        self.begun = Counter[int | str]()

    def begin(self, name: int | str) -> int:
        self.begun[name] += 1
        return self.begun[name]

    def end(self, name: int | str) -> None:
        del self.begun[name]


class _Worker:
    """One process of the fleet, with its own checkpoint. `tries` is a handle of `_Tries`."""

    def __init__(self, fleet: Fleet, options: BatchOptions, tries: Any) -> None:
        import_diffusers()
        from retinashift.batch.upscale import upscale_files
        from retinashift.inference.memory import choose_device
        from retinashift.inference.pipeline import open_checkpoint

        self.options, self.tries = options, tries
        pipeline = open_checkpoint(fleet.checkpoint).to(choose_device(fleet.device))
        self.upscale = partial(upscale_files, pipeline, record=run_record(pipeline, options))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The outcomes of a block of jobs. If a worker died of them, those that are left are done one by one."""
        first, jobs = int(batch["first"][0]), pickle.loads(zlib.decompress(batch["jobs"][0]))
        if self._begin(first) == 1:
            outcomes = self.upscale(jobs, self.options)
        else:
            outcomes = (self._alone(first + number, job) for number, job in enumerate(jobs))
        return {"row": np.arange(first, first + len(jobs)), "outcome": [outcome.line() for outcome in outcomes]}

    def _alone(self, row: int, job: Job) -> Outcome:
        """The outcome of a job that a worker held when it died; one that this run has finished counts as written."""
        if self._begin(f"alone {row}") > TRIES:
            return Outcome(job, f"its worker ended {TRIES} times, perhaps for want of memory; upscale it by itself")
        (outcome,) = self.upscale([job], replace(self.options, resume=True))
        self.tries.end.remote(f"alone {row}")
        return replace(outcome, skipped=outcome.skipped and self.options.resume)

    def _begin(self, name: int | str) -> int:
        import ray

        return ray.get(self.tries.begin.remote(name))
