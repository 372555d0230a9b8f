"""What a run says of its results: the provenance record, the sidecar beside a result and the line of a log."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinashift import __version__
from retinashift.batch.jobs import Job
from retinashift.imaging.failures import explain
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.checkpoints import checkpoint_hash
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling


def make_record(
    pipeline: ResShiftPipeline, sampling: Sampling, seed: int, page: int | None = None, deidentify: bool = False
) -> Provenance:
    """The record that all results of a run share; each adds its input and its consistency."""
    config, plan = pipeline.config, pipeline.plan(sampling)
    options: dict[str, Any] = {"precision": pipeline.used_precision(sampling.precision)}
    if page is not None:
        options["page"] = page
    if deidentify:
        options["deidentified"] = True
    if sampling.mode == "realistic":
        options["detail_gain"] = config.detail_gain
        if config.detail_transition != "ancestral":
            options["transition"] = config.detail_transition
    if sampling.output_uncertainty:
        curves = json.dumps(config.calibration, sort_keys=True).encode()
        options["uncertainty"] = sampling.ensemble_size
        options["calibration"] = digest(curves)[:16] if config.calibration else "none"
    return Provenance(
        scale=config.scale,
        checkpoint=checkpoint_hash(pipeline),
        steps=plan.steps,
        seed=seed if plan.noise else None,
        input="",
        ensemble=sampling.ensemble_size,
        back_projections=plan.back_projections,
        options=options,
        device=pipeline.device.type,
        versions={
            "retinashift": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


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


def is_sidecar(path: Path) -> bool:
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
        if self.error:
            values["error"] = self.error
        if self.internal:
            values["internal"] = True
        if self.record is not None:
            values["provenance"] = asdict(self.record)
        return json.dumps(values) + "\n"


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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
