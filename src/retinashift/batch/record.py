"""What a run says of its results: the provenance record, the sidecar beside a result and the line of a log."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from retinashift.batch.jobs import Job
from retinashift.batch.places import Place, stamp_of
from retinashift.imaging.failures import explain
from retinashift.imaging.provenance import Provenance, digest


def make_sidecar(source: str, target: str, result: bytes, record: Provenance) -> bytes:
    """The JSON file beside a result: names of input and result, the result's hash, the record.

    Args:
        source, target: file names without folders.
        result: the bytes of the result.
        record: of the result.
    """
    values = {
        "source": source,
        "result": target,
        "result_sha256": digest(result),
        "written": _now(),
        "provenance": json.loads(record.line()),
    }
    return (json.dumps(values, indent=2) + "\n").encode()


def is_sidecar(path: Place) -> bool:
    """Whether a JSON file is a sidecar of ours: other programs also keep JSON beside pictures."""
    try:
        return "result_sha256" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
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

    @classmethod
    def failed(cls, job: Job, error: BaseException) -> Outcome:
        """Whatever a decoder, the pipeline, an encoder or a figure raises for one file is that file's failure."""
        failure = explain(error)
        return cls(job, failure.text, failure.internal)

    def line(self) -> str:
        """One line of JSON for a log, with the current time."""
        values: dict[str, Any] = {
            "time": _now(),
            "status": "failed" if self.error else "skipped" if self.skipped else "written",
            "source": str(self.job.source),
            "target": str(self.job.target),
            "seconds": round(self.seconds, 3),
        }
        if stamp := stamp_of(self.job.source):
            values["stamp"] = stamp
        if self.error:
            values["error"] = self.error
        if self.internal:
            values["internal"] = True
        if self.record is not None:
            values["provenance"] = asdict(self.record)
        return json.dumps(values) + "\n"

    @classmethod
    def parse(cls, job: Job, line: str) -> Outcome:
        """The outcome of a job that `line` has written."""
        return cls.parse_values(job, json.loads(line))

    @classmethod
    def parse_values(cls, job: Job, values: dict[str, Any]) -> Outcome:
        """`parse` of a line whose JSON is read; a record of another version is left out."""
        try:
            record = Provenance(**values["provenance"]) if "provenance" in values else None
        except TypeError:
            record = None
        skipped, internal = values["status"] == "skipped", values.get("internal", False)
        return cls(job, values.get("error", ""), internal, skipped, record, values.get("seconds", 0.0))


def append_line(path: Path, line: str) -> None:
    """Append a whole line to a log, or nothing: if the disk is full, the log is cut back to its former length.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("ab", buffering=0) as log:
        length = log.seek(0, os.SEEK_END)
        data = line.encode()
        try:
            written = log.write(data)
        except OSError:
            log.truncate(length)
            raise
        if written != len(data):
            log.truncate(length)
            raise OSError(f"{path}: the disk is full; the log keeps its former lines")


def merge_logs(paths: Sequence[Path], out: Path) -> dict[str, int]:
    """Join logs into one table with the last line of each result, sorted by source; the rows of each status.

    Args:
        paths: logs of `upscale`. A last line that a killed process left half is left out.
        out: ends in .parquet for a table of Parquet, else lines of JSON.

    Raises:
        ValueError: a line that is not of such a log.
        OSError: a log cannot be read, or the table cannot be written.
    """
    last: dict[str, tuple[str, str, int, int, str]] = {}  # the lines of a million results would fill the memory
    for number, path in enumerate(paths):
        for offset, values in read_log(path):
            place = (values["source"], values["time"], number, offset, values["status"])
            if last.get(values["target"], ("", ""))[1] <= values["time"]:
                last[values["target"]] = place
    order = sorted(last.values())
    with ExitStack() as opened:
        logs = [opened.enter_context(path.open("rb")) for path in paths]

        def rows() -> Iterator[bytes]:
            for _, _, number, offset, _ in order:
                logs[number].seek(offset)
                yield logs[number].readline()

        with _whole(out) as temporary:
            if out.suffix.lower() == ".parquet":
                _write_parquet(temporary, rows())
            else:
                with temporary.open("wb") as file:
                    file.writelines(rows())
    counts = {"written": 0, "skipped": 0, "failed": 0}
    for *_, status in order:
        counts[status] = counts.get(status, 0) + 1
    return counts


def read_log(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Offset and values of each whole line of a log."""
    with path.open("rb") as file:
        offset = 0
        for line in file:
            if line.endswith(b"\n"):  # else the process that wrote it was killed
                try:
                    values = json.loads(line)
                    known = isinstance(values, dict) and {"time", "status", "source", "target"} <= set(values)
                except ValueError:
                    known = False
                if not known:
                    raise ValueError(f"{path} is not a log of JSON lines that --log has written (byte {offset})")
                yield offset, values
            offset += len(line)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A temporary file beside `out`, which it replaces when it is complete."""
    temporary = out.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(path: Path, lines: Iterator[bytes]) -> None:
    """Columns of the fields of a log; the provenance is a column of JSON."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise ImportError("a table of Parquet needs pyarrow: pip install -c constraints.txt -e '.[fleet]'") from None
    text = ("time", "status", "source", "target", "stamp", "error", "provenance")
    schema = pa.schema([*((name, pa.string()) for name in text), ("seconds", pa.float64()), ("internal", pa.bool_())])
    with ParquetWriter(path, schema) as writer:
        while some := [json.loads(line) for line in islice(lines, 10_000)]:
            for row in some:
                row["provenance"] = json.dumps(row["provenance"]) if "provenance" in row else None
            writer.write_table(pa.Table.from_pylist(some, schema))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
