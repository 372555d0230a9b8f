"""Files in, files out, by the workers of a Ray cluster: Ray Data hands out the jobs and replaces workers that die."""

from __future__ import annotations

import json
import logging
import os
import pickle
import secrets
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from retinashift.batch.jobs import Job, lookup, wanted_beside
from retinashift.batch.places import Place, stamp_of
from retinashift.batch.record import Outcome, read_log
from retinashift.batch.upscale import BatchOptions, upscale_files
from retinashift.imaging.failures import one_line
from retinashift.imaging.provenance import Provenance
from retinashift.inference.checkpoints import open_checkpoint
from retinashift.inference.memory import choose_device
from retinashift.inference.record import make_record

_TRIES = 3
"""Workers that one photograph may end before it is given up."""
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

    A photograph that fails, or that ends its worker three times, is an outcome. When a worker or its machine dies, what
    it held is done again; results that are there already are kept. Credentials of stores are not handed to the workers:
    each reads its own environment.

    Args:
        jobs: of `plan_jobs`; local paths must be on a file system that all machines share.
        options: defaults to `BatchOptions()`.
        fleet: defaults to `Fleet()`.

    Raises:
        ImportError: Ray is missing.
        OSError: the cluster cannot be reached, or ended the work.
    """
    options, fleet = options or BatchOptions(), fleet or Fleet()
    if not jobs:
        return
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
        size = min(_LARGEST_BLOCK, max(1, len(jobs) // (20 * workers)))
        blocks = [range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size)]
        tables = [pa.table({"row": rows, "job": [pickle.dumps(jobs[row]) for row in rows]}) for rows in blocks]
        dataset = ray.data.from_arrow(tables).map_batches(
            _Worker,
            fn_constructor_args=(fleet, options, secrets.token_hex(8)),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            batch_size=None,
            **needs,
        )
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for row, line in zip(batch["row"], batch["outcome"], strict=True):
                yield Outcome.parse(jobs[int(row)], line)
    except ray.exceptions.RayError as error:
        raise OSError(f"the cluster ended the work: {one_line(str(error))[-300:]}") from None
    finally:
        ray.shutdown()


def left_to_do(jobs: Sequence[Job], log: Path, record: Provenance, options: BatchOptions) -> list[Job]:
    """The jobs without those that a log says are done, by this very work, from files that have not changed since.

    No input or result is read: the log has the stamp of each input, and a listing says which results are there.

    Args:
        record: of the run, as `make_record` gives it.
    """
    done: set[bytes] = set()
    for _, values in read_log(log):
        outcome = Outcome.parse_values(Job(Path(), Path()), values)
        if outcome.record is None or outcome.error or "stamp" not in values:
            continue
        theirs, quality = dict(outcome.record.options), options.quality
        same = theirs.pop("quality", quality) == quality
        measured: dict[str, Any] = {
            "input": outcome.record.input, "input_was_super_resolved": outcome.record.input_was_super_resolved,
        }  # fmt: skip
        if same and replace(outcome.record, options=theirs).same_work(replace(record, **measured)):
            done.add(_key(values["source"], values["target"], values["stamp"]))
    rest: list[Job] = []
    candidates: list[Job] = []
    for job in jobs:
        held = _key(str(job.source), str(job.target), stamp_of(job.source)) in done
        (candidates if held else rest).append(job)
    if candidates:
        exists = lookup([job.target for job in candidates])

        def missing(target: Place) -> bool:
            beside = wanted_beside(target, options.sidecar, options.sampling.output_uncertainty, options.figure)
            return not all(map(exists, (target, *beside)))

        rest += [job for job in candidates if missing(job.target)]
    return rest


def _key(source: str, target: str, stamp: str) -> bytes:
    return blake2b(json.dumps([source, target, stamp]).encode(), digest_size=16).digest()


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
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    local = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(**({"address": address} if address else local), log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of gRPC, of sockets, or of its own
        raise OSError(f"no Ray cluster at {address or 'this machine'}: {one_line(str(error))[:300]}") from None
    return ray


class _Worker:
    """One process of the fleet, with its own checkpoint."""

    def __init__(self, fleet: Fleet, options: BatchOptions, run: str) -> None:
        self.pipeline = open_checkpoint(fleet.checkpoint).to(choose_device(fleet.device))
        self.options = options
        self.record = make_record(self.pipeline, options.sampling, options.seed, options.page, options.deidentify)
        self.tries = Path(tempfile.gettempdir()) / f"retinashift-{run}"

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The outcomes of some jobs. One that is called again for the same jobs does them one by one."""
        rows = [int(row) for row in batch["row"]]
        jobs = [pickle.loads(job) for job in batch["job"]]
        again = self._try(f"block-{rows[0]}") > 1
        # a worker that died may have written some: what was there before the run was refused, or may be replaced
        options = replace(self.options, resume=True) if again or not self.options.overwrite else self.options
        for row, outcome in zip(
            rows, self._each(rows, jobs, options) if again else self._run(jobs, options), strict=True
        ):
            if outcome.skipped and not self.options.resume:
                outcome = replace(outcome, skipped=False)
            yield {"row": [row], "outcome": [outcome.line()]}
        self._done(f"block-{rows[0]}")

    def _run(self, jobs: list[Job], options: BatchOptions) -> Iterator[Outcome]:
        return upscale_files(self.pipeline, jobs, options, record=self.record)

    def _each(self, rows: list[int], jobs: list[Job], options: BatchOptions) -> Iterator[Outcome]:
        """One by one, so that a photograph that ends the process is known by its number of tries."""
        for row, job in zip(rows, jobs, strict=True):
            if self._try(str(row)) > _TRIES:
                yield Outcome(job, f"its worker ended {_TRIES} times, perhaps for want of memory; upscale it by itself")
            else:
                yield from self._run([job], options)
            self._done(str(row))

    def _try(self, name: str) -> int:
        """How often work of that name has begun on this machine and not ended, with this time."""
        self.tries.mkdir(exist_ok=True)
        with open(self.tries / name, "ab") as file:
            file.write(b".")
            return file.tell()

    def _done(self, name: str) -> None:
        (self.tries / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another worker's
            self.tries.rmdir()
