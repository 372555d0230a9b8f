"""What a run says of its results: the provenance record, the sidecar beside a result and the line of a log."""

import json
import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinashift.batch.jobs import BatchOptions, Job, digests, holds, lookup
from retinashift.batch.places import Place, read_head, stamp_of
from retinashift.imaging.files import ImageError, find_provenance
from retinashift.imaging.provenance import Provenance, digest

if TYPE_CHECKING:
    from retinashift.inference.pipeline import ResShiftPipeline

_HEADER = 2**16
"""Bytes of a file that hold its header, with its record, in most formats."""


def run_record(pipeline: "ResShiftPipeline", options: BatchOptions) -> Provenance:
    """What the records of all results of a run share."""
    from retinashift.inference.record import make_record  # loads torch

    return make_record(pipeline, options.sampling, options.seed, options.page, options.deidentify)


def for_input(record: Provenance, data: bytes, target: Place, options: BatchOptions) -> Provenance:
    """The record of a run for one input and the format of its result."""
    quality = options.quality_for(target)
    more = {} if quality is None else {"quality": quality}
    return replace(record, input=digest(data), options=record.options | more)


def same_work(former: Provenance, record: Provenance, options: BatchOptions) -> bool:
    """Whether `former` is of a result with this `record` of `for_input`; what follows from both is not compared."""
    scale = record.scale if options.sampling.longest_side is None else former.scale
    return former.same_work(replace(record, scale=scale, input_was_super_resolved=former.input_was_super_resolved))


def read_record(place: Place) -> Provenance | None:
    """The record in a result, by its header where that is enough; None for a file that holds none."""
    for read in (lambda: read_head(place, _HEADER), place.read_bytes):
        with suppress(ImageError):  # it may be cut short
            if found := find_provenance(read(), str(place)):
                return found
    return None


def make_sidecar(job: Job, result: bytes, record: Provenance) -> bytes:
    """The JSON file beside a result: names of input and result without folders, the result's hash, the record."""
    values = {"source": job.source.name, "result": job.target.name, "result_sha256": digest(result)}
    values |= {"written": _now(), "provenance": json.loads(record.line())}
    return (json.dumps(values, indent=2) + "\n").encode()


def is_sidecar(path: Place) -> bool:
    """Whether a JSON file is a sidecar of ours: other programs also keep JSON beside pictures."""
    with suppress(ValueError, TypeError):
        return "result_sha256" in json.loads(path.read_bytes())
    return False


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is "" if its result is there."""

    job: Job
    error: str = ""
    internal: bool = False
    """The error is a fault of this program, not of the file."""
    skipped: bool = False
    """An identical run had written the result and everything beside it."""
    record: Provenance | None = None
    seconds: float = 0.0
    """From the end of reading to the end of writing."""

    def line(self) -> str:
        """One line of JSON for a log, with the current time."""
        values: dict[str, Any] = {
            "time": _now(), "status": "failed" if self.error else "skipped" if self.skipped else "written",
            "source": str(self.job.source), "target": str(self.job.target), "seconds": round(self.seconds, 3),
            "stamp": stamp_of(self.job.source), "error": self.error, "internal": self.internal,
            "provenance": self.record and vars(self.record),
        }  # fmt: skip
        return json.dumps({key: value for key, value in values.items() if value or key == "seconds"}) + "\n"

    @classmethod
    def parse(cls, job: Job, values: dict[str, Any]) -> "Outcome":
        """The outcome of a job from the values of its `line`; a record of another version is left out."""
        record = None
        with suppress(KeyError, TypeError):
            record = Provenance(**values["provenance"])
        skipped, internal = values["status"] == "skipped", values.get("internal", False)
        return cls(job, values.get("error", ""), internal, skipped, record, values.get("seconds", 0.0))


def append_line(path: Path, line: str) -> None:
    """Append a whole line to a log, or none: where it cannot be written (OSError), the log is cut back as it was."""
    data = line.encode()
    with path.open("ab", buffering=0) as log:
        length = log.seek(0, os.SEEK_END)
        try:
            if log.write(data) != len(data):
                raise OSError(f"{path}: the disk is full; the log keeps its former lines")
        except BaseException:
            log.truncate(length)
            raise


def left_to_do(jobs: Sequence[Job], log: Path, record: Provenance, options: BatchOptions) -> list[Job]:
    """The jobs without those that a log says are done, by the work of this `run_record`, from files unchanged since.

    No input or result is read: the log has the stamp of each input, and a listing says which results are there.
    """

    def done() -> Iterator[str]:
        for _, values in read_log(log):
            job = Job(Path(values["source"]), Path(values["target"]))
            former = Outcome.parse(job, values).record
            if former is not None and "error" not in values and "stamp" in values:
                mine = replace(for_input(record, b"", job.target, options), input=former.input)
                if same_work(former, mine, options):
                    yield "\n".join((values["source"], values["target"], values["stamp"]))

    known = digests(done())
    exists = lookup([job.target for job in jobs])

    def is_done(job: Job) -> bool:
        logged = holds(known, "\n".join((str(job.source), str(job.target), stamp_of(job.source))))
        return logged and all(map(exists, (job.target, *options.beside(job.target))))

    return [job for job in jobs if not is_done(job)]


def merge_logs(paths: Sequence[Path], out: Path) -> dict[str, int]:
    """Join logs of `upscale` into one with the last line of each result, sorted by source; the rows of each status.

    A last line that a killed process left half is left out. `out` is replaced when it is complete. ValueError for a
    line that is not of such a log, OSError where a log cannot be read or the table cannot be written.
    """
    counts = Counter({"written": 0, "skipped": 0, "failed": 0})
    temporary = out.with_name(f".{secrets.token_hex(8)}.tmp")
    lines = (found for path in paths for found in read_log(path))
    rows = ((os.fsencode(row["target"]), os.fsencode(row["source"]), row["time"], row["status"], line)
            for line, row in lines)  # fmt: skip
    try:
        with closing(sqlite3.connect("")) as table:  # on disk: the lines of a million results would fill the memory
            table.execute("CREATE TABLE log (target BLOB PRIMARY KEY, source BLOB, time TEXT, status TEXT, line TEXT)")
            table.executemany(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET (source, time, status, line) = "
                "(excluded.source, excluded.time, excluded.status, excluded.line) WHERE excluded.time >= time",
                rows,
            )
            with temporary.open("w", encoding="utf-8") as file:
                for status, line in table.execute("SELECT status, line FROM log ORDER BY source, target"):
                    counts[status] += 1
                    file.write(line)
        os.replace(temporary, out)
    except sqlite3.Error as error:
        raise OSError(f"{out}: the table cannot be made ({error}); is there room for temporary files?") from None
    finally:
        temporary.unlink(missing_ok=True)
    return dict(counts)


def read_log(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Text and values of each whole line of a log."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):  # the process that wrote it was killed
                return
            values = None
            with suppress(ValueError):
                values = json.loads(line)
            if not (isinstance(values, dict) and {"time", "status", "source", "target"} <= set(values)):
                raise ValueError(f"{path} is not a log of JSON lines that --log has written (line {number})")
            yield line, values


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
