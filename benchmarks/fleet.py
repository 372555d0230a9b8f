"""What fleets cost: a million simulated files, workers against processes, and workers that are killed.

    python benchmarks/fleet.py simulate --files 1000000      # list, plan, shard, log and resume, with no network
    python benchmarks/fleet.py rate PHOTOGRAPHS CHECKPOINT   # 2 workers of Ray against 2 local processes
    python benchmarks/fleet.py kill PHOTOGRAPHS CHECKPOINT   # a worker killed 20 times in one job

Times of a busy machine are compared with each other only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import psutil

from retinashift.batch import places
from retinashift.batch.fleet import Fleet, upscale_fleet
from retinashift.batch.jobs import BatchOptions, in_shard, plan_jobs
from retinashift.batch.places import Remote
from retinashift.batch.record import Outcome, left_to_do, merge_logs
from retinashift.imaging.provenance import Provenance

_REQUEST_SECONDS = 0.002
_PAGE = 1000


class Simulated:
    """A store of numbered photographs. A request takes a while and moves nothing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.requests = 0

    def info(self, address: str) -> dict[str, object]:
        raise FileNotFoundError(address)

    def call_s3(self, method: str, *, Bucket: str, Prefix: str, ContinuationToken: str = "0") -> dict[str, object]:
        assert method == "list_objects_v2"
        time.sleep(_REQUEST_SECONDS)
        self.requests += 1
        first, last = int(ContinuationToken), min(int(ContinuationToken) + _PAGE, self.count)
        items = [
            {
                "Key": f"{Prefix}site-{n % 50:02d}/2026/patient-{n:07d}_left.png",
                "Size": 90_000 + n,
                "ETag": f'"{n:032x}"',
            }
            for n in range(first, last)
        ]
        return {"Contents": items, "IsTruncated": last < self.count, "NextContinuationToken": str(last)}


def memory() -> float:
    """MiB of this process."""
    return psutil.Process().memory_info().rss / 2**20


def simulate(count: int) -> None:
    """Print seconds of processor and memory of each stage for that many files."""
    store, record = Simulated(count), Provenance(4, "c" * 64, 1, None, "", versions={"retinashift": "0"})
    start = memory()
    clock = time.process_time()

    def told(stage: str) -> None:
        nonlocal clock
        now = time.process_time()
        print(f"{count:>9,} files  {stage:<22} {now - clock:7.1f} s  {memory() - start:6.0f} MiB more", flush=True)
        clock = time.process_time()

    with mock.patch.object(places, "open_system", return_value=store), tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        jobs = plan_jobs(["s3://in/study"], "s3://out/study", BatchOptions(resume=True))
        assert len(jobs) == count
        told(f"list and plan, {store.requests} req.")
        shard = (3, 16)
        held = sum(in_shard(job.source.below, shard) for job in jobs if isinstance(job.source, Remote))
        told(f"shard 3/16: {held:,}")
        with log.open("wb") as file:
            for number, job in enumerate(jobs):
                if number % 10:  # a tenth was not reached
                    mine = Provenance(**{**vars(record), "input": f"{number:064x}", "consistency_db": 51.2})
                    file.write(Outcome(job, record=mine).line().encode())
        told("write the log")
        left = left_to_do(jobs, log, record, BatchOptions())
        assert len(left) == -(-count // 10), len(left)
        told("resume from the log")
        merge_logs([log], Path(folder, "all.jsonl"))
        told("merge logs")
    print(f"{count:>9,} files  largest memory {peak():.0f} MiB, with the libraries {start:.0f} MiB")


def peak() -> float:
    """MiB of this process at its largest."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@contextmanager
def watched(folder: Path, processes: list[psutil.Process]) -> Iterator[list[tuple[float, int, float]]]:
    """Time, number of results and processor seconds of the processes with all below them, every two seconds."""
    samples, over = [], threading.Event()
    spent: dict[int, float] = {}  # by process; those that have ended keep what they spent

    def watch() -> None:
        while not over.wait(2):
            for root in processes:
                with suppress(psutil.NoSuchProcess):
                    for process in (root, *root.children(recursive=True)):
                        with suppress(psutil.NoSuchProcess):
                            spent[process.pid] = sum(process.cpu_times()[:2])
            samples.append((time.time(), len(list(folder.glob("*.png"))), sum(spent.values())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def rates(samples: list[tuple[float, int, float]]) -> tuple[float, float]:
    """Results a second, and a second of processor; the first eight results are the start."""
    first, last = (next(one for one in samples if one[1] >= count) for count in (8, samples[-1][1]))
    done = last[1] - first[1]
    return done / (last[0] - first[0]), done / (last[2] - first[2])


def rate(folder: Path, checkpoint: str) -> None:
    """Photographs a second of two local processes of one thread, and of two workers."""
    with tempfile.TemporaryDirectory() as out:
        runs = []
        for number in (1, 2):
            command = [sys.executable, "-m", "retinashift", "upscale", str(folder), "-o", f"{out}/local", "--shard",
                       f"{number}/2", "--checkpoint", checkpoint, "--quiet"]  # fmt: skip
            runs.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        with watched(Path(out, "local"), [psutil.Process(process.pid) for process in runs]) as samples:
            assert [process.wait() for process in runs] == [0, 0]
        local = rates(samples)
        jobs, asked, first = plan_jobs([folder], f"{out}/ray"), time.time(), 0.0
        with watched(Path(out, "ray"), [psutil.Process()]) as samples:
            for outcome in upscale_fleet(jobs, BatchOptions(), Fleet(workers=2, checkpoint=checkpoint)):
                first = first or time.time()
                assert not outcome.error, outcome.error
        results = [Path(str(job.target)) for job in jobs]
        ray, began = rates(samples), min(path.stat().st_mtime for path in results)
        for number, unit in enumerate(("a second", "a second of processor")):
            ratio = ray[number] / local[number]
            print(
                f"{len(jobs)} photographs, {unit}: local {local[number]:.2f}, Ray {ray[number]:.2f}, ratio {ratio:.2f}"
            )
        spent = next(one[2] for one in samples if one[1]) - samples[0][2]
        print(
            f"first result after {began - asked:.1f} s, {spent:.1f} s of processor; outcome after {first - asked:.1f} s"
        )
        same = all(Path(out, "local", path.name).read_bytes() == path.read_bytes() for path in results)
        print("equal bytes" if same else "BYTES DIFFER")


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The actors below a process."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is none
            if "MapWorker" in " ".join(child.cmdline()[:2]):
                found.append(child)
    return found


def kill(folder: Path, checkpoint: str, times: int) -> None:
    """Kill a worker at random moments, and count what was done more than once."""
    draw, killed, over = random.Random(0), 0, threading.Event()

    def killer() -> None:
        nonlocal killed
        while not over.wait(draw.uniform(0.5, 4)) and killed < times:
            if found := workers_of(psutil.Process()):
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(found).pid, signal.SIGKILL)
                    killed += 1

    with tempfile.TemporaryDirectory() as out:
        jobs = plan_jobs([folder], out)
        thread = threading.Thread(target=killer)
        thread.start()
        try:
            outcomes = list(upscale_fleet(jobs, BatchOptions(), Fleet(workers=2, checkpoint=checkpoint)))
        finally:
            over.set()
            thread.join()
        whole = sum(path.suffix == ".png" for path in Path(out).iterdir())
        names = {outcome.job.source for outcome in outcomes}
        print(f"{killed} kills, {len(jobs)} jobs: {len(outcomes)} outcomes of {len(names)} photographs, "
              f"{sum(bool(o.error) for o in outcomes)} failed, {whole} results")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulate", "rate", "kill"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("checkpoint", nargs="?", default="")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    if given.what == "simulate":
        simulate(given.files)
    elif given.what == "rate":
        rate(given.folder, given.checkpoint)
    else:
        kill(given.folder, given.checkpoint, given.times)


if __name__ == "__main__":
    main()
