"""What fleets cost: a million simulated files, workers against processes, and workers that are killed.

    python benchmarks/fleet.py simulate --files 1000000      # list, plan, shard, log and resume, with no network
    python benchmarks/fleet.py simulate --ray                # the same, and through a cluster that computes nothing
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
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import psutil

from retinashift.batch import fleet, places
from retinashift.batch.fleet import Fleet, upscale_fleet
from retinashift.batch.jobs import BatchOptions, Job, in_shard, plan_jobs
from retinashift.batch.places import Remote
from retinashift.batch.record import Outcome, append_line, left_to_do, merge_logs
from retinashift.cli.shared import open_pipeline
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


def record_of(number: int) -> Provenance:
    """The record of a numbered photograph."""
    versions = {"retinashift": "0"}
    return Provenance(4, "c" * 64, 1, None, f"{number:064x}", versions=versions, consistency_db=51.2)


class Idle(fleet._Worker):
    """A worker that writes the row of a photograph and nothing else."""

    def __init__(self, chosen: Fleet, options: BatchOptions, tries: object) -> None:
        self.options = options
        self.upscale = lambda jobs, _: (Outcome(job, record=record_of(1)) for job in jobs)

    def _begin(self, _: int | str) -> int:
        return 1


def simulate(count: int, by_ray: bool) -> None:
    """Print seconds of processor and memory of each stage for that many files."""
    store, record = Simulated(count), replace(record_of(0), input="", consistency_db=None)
    pipeline = open_pipeline("", "cpu")  # as the command holds it
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
                    file.write(Outcome(job, record=record_of(number)).line().encode())
        told("write the log")
        left = left_to_do(jobs, log, record, BatchOptions())
        assert len(left) == -(-count // 10), len(left)
        told("resume from the log")
        merge_logs([log], Path(folder, "all.jsonl"))
        told("merge logs")
        print(f"{count:>9,} files  largest memory {peak():.0f} MiB, before the list {start:.0f} MiB", flush=True)
        if by_ray:
            rows, most = 0, 0.0
            with mock.patch.object(fleet, "_Worker", Idle):
                for outcome in upscale_fleet(jobs, BatchOptions(), Fleet(workers=2)):
                    append_line(Path(folder, "ray.jsonl"), outcome.line())
                    rows += 1
                    if rows % 5_000 == 0:  # without Ray's store, which is shared and has a size of its own
                        held = psutil.Process().memory_info()
                        most = max(most, (held.rss - getattr(held, "shared", 0)) / 2**20)
            assert rows == count, rows
            told("through Ray")
            print(f"{count:>9,} files  largest memory {peak():.0f} MiB, with Ray; {most:.0f} of its own")
    del pipeline


def peak() -> float:
    """MiB of this process at its largest."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@contextmanager
def watched(processes: list[psutil.Process]) -> Iterator[list[tuple[float, float]]]:
    """Time and processor seconds of the processes with all below them, twice a second."""
    samples, over = [], threading.Event()
    spent: dict[int, float] = {}  # by process; those that have ended keep what they spent

    def watch() -> None:
        while not over.wait(0.5):
            for root in processes:
                with suppress(psutil.NoSuchProcess):
                    for process in (root, *root.children(recursive=True)):
                        with suppress(psutil.NoSuchProcess):
                            spent[process.pid] = sum(process.cpu_times()[:2])
            samples.append((time.time(), sum(spent.values())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def rates(results: list[Path], samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Results a second, and a second of processor, from the eighth result on: before it the processes start."""
    written = sorted(path.stat().st_mtime for path in results)
    first, last = written[7], written[-1]
    spent = np.interp([first, last], *np.transpose(samples))
    return (len(written) - 8) / (last - first), (len(written) - 8) / float(spent[1] - spent[0])


def rate(folder: Path, checkpoint: str) -> None:
    """Photographs a second of two local processes of one thread, and of two workers."""
    with tempfile.TemporaryDirectory() as out:
        runs = []
        for number in (1, 2):
            command = [sys.executable, "-m", "retinashift", "upscale", str(folder), "-o", f"{out}/local", "--shard",
                       f"{number}/2", "--checkpoint", checkpoint, "--quiet"]  # fmt: skip
            runs.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        with watched([psutil.Process(process.pid) for process in runs]) as samples:
            assert [process.wait() for process in runs] == [0, 0]
        jobs = plan_jobs([folder], f"{out}/ray")
        results = [Path(str(job.target)) for job in jobs]
        local, asked, first = rates([Path(out, "local", path.name) for path in results], samples), time.time(), 0.0
        with watched([psutil.Process()]) as samples:
            for outcome in upscale_fleet(jobs, BatchOptions(), Fleet(workers=2, checkpoint=checkpoint)):
                first = first or time.time()
                assert not outcome.error, outcome.error
        for unit, here, there in zip(
            ("a second", "a second of processor"), local, rates(results, samples), strict=True
        ):
            print(f"{len(jobs)} photographs, {unit}: local {here:.2f}, Ray {there:.2f}, ratio {there / here:.2f}")
        began = min(path.stat().st_mtime for path in results)
        spent = np.interp(began, *np.transpose(samples)) - samples[0][1]
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


class Traced(fleet._Worker):
    """A worker that appends a line to a file when it samples a photograph, and when it has written a result."""

    trace = ""

    def __init__(self, chosen: Fleet, options: BatchOptions, tries: object) -> None:
        super().__init__(chosen, options, tries)
        from retinashift.batch import upscale

        trace, sample, write = Path(self.trace), upscale.upscale_source, upscale.write_place

        def sampled(pipeline: object, job: Job, *given: object) -> object:
            append_line(trace, f"{os.getpid()} sampled {job.source.stem}\n")
            return sample(pipeline, job, *given)

        def written(place: Path, data: bytes, **given: bool) -> None:
            write(place, data, **given)
            append_line(trace, f"{os.getpid()} written {place.stem}\n")

        upscale.upscale_source, upscale.write_place = sampled, written


def kill(folder: Path, checkpoint: str, times: int) -> None:
    """Kill a worker at random moments, and count how often each photograph was sampled and written."""
    draw, killed, over = random.Random(0), set[int](), threading.Event()

    def killer() -> None:  # by the progress of the job, since a worker that starts holds nothing
        due = 0
        while len(killed) < times and not over.wait(draw.uniform(0.02, 0.5)):
            rows = Path(trace.name).read_text().splitlines()
            begun = {int(row.split()[0]) for row in rows}
            busy = begun & {worker.pid for worker in workers_of(psutil.Process())} - killed
            if len(rows) >= due and busy:
                victim = draw.choice(sorted(busy))
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)
                    due = len(rows) + draw.randint(1, 8)

    with tempfile.TemporaryDirectory() as out, tempfile.NamedTemporaryFile() as trace:
        jobs = plan_jobs([folder], out)
        Traced.trace = trace.name
        thread = threading.Thread(target=killer)
        thread.start()
        try:
            with mock.patch.object(fleet, "_Worker", Traced):
                outcomes = list(upscale_fleet(jobs, BatchOptions(), Fleet(workers=2, checkpoint=checkpoint)))
        finally:
            over.set()
            thread.join()
        whole = sum(path.suffix == ".png" for path in Path(out).iterdir())
        names = {outcome.job.source for outcome in outcomes}
        print(f"{len(killed)} kills, {len(jobs)} jobs: {len(outcomes)} outcomes of {len(names)} photographs, "
              f"{sum(bool(o.error) for o in outcomes)} failed, {whole} results")  # fmt: skip
        for outcome in outcomes:
            if outcome.error:
                print(f"{outcome.job.source}: {outcome.error}")
        count_work(Path(trace.name), killed)


def count_work(trace: Path, killed: set[int]) -> None:
    """Print how often photographs were sampled and written, and whether each repetition has a worker that died."""
    rows = [line.split() for line in trace.read_text().splitlines()]
    sampled, written = (Counter(name for _, what, name in rows if what == kind) for kind in ("sampled", "written"))
    finished = {(pid, name) for pid, what, name in rows if what == "written"}
    held = Counter(name for pid, what, name in rows if (pid, name) not in finished and int(pid) in killed)
    unexplained = sum(count > 1 + held[name] for name, count in sampled.items())
    print(f"sampled {sampled.total()} times, {sum(held.values())} of them in workers that were killed meanwhile; "
          f"most often {max(sampled.values())} times; {unexplained} more often than that explains; "
          f"written more than once: {sum(count > 1 for count in written.values())}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulate", "rate", "kill"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("checkpoint", nargs="?", default="")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    if given.what == "simulate":
        simulate(given.files, given.ray)
    elif given.what == "rate":
        rate(given.folder, given.checkpoint)
    else:
        kill(given.folder, given.checkpoint, given.times)


if __name__ == "__main__":
    main()
