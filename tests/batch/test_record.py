"""Logs of several machines become one table: one row for each result, its last."""

import json
from pathlib import Path

import numpy as np
import pytest

from builders.command import one_line_error, retinashift
from builders.dicom import photography, written
from retinashift.batch.jobs import Job
from retinashift.batch.record import Outcome, merge_logs, read_record
from retinashift.imaging.files import decode_image, encode_image, write_image
from retinashift.imaging.provenance import Provenance


def line(name: str, time: str, **values) -> str:
    outcome = Outcome(Job(Path("in") / name, Path("out") / name), record=Provenance(4, "c", 1, 0, "f"), **values)
    return json.dumps({**json.loads(outcome.line()), "time": time}) + "\n"


@pytest.fixture
def logs(tmp_path):
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text(line("b.png", "2026-01-01", error="damaged") + line("a.png", "2026-01-01"))
    two.write_text(line("b.png", "2026-01-02") + line("c.png", "2026-01-01", error="x") + '{"time": "killed')
    return [one, two]


def rows(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_merged_logs_have_the_last_row_of_each_result(logs, tmp_path):
    assert merge_logs(logs, tmp_path / "all.jsonl") == {"written": 2, "skipped": 0, "failed": 1}
    found = rows(tmp_path / "all.jsonl")
    assert [(row["source"], row["status"]) for row in found] == [
        ("in/a.png", "written"), ("in/b.png", "written"), ("in/c.png", "failed"),
    ]  # fmt: skip
    assert found[0] == rows(logs[0])[1]
    merge_logs(logs[::-1], tmp_path / "other.jsonl")
    assert (tmp_path / "other.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()


def test_the_command_refuses_other_files_and_leaves_no_table(logs, tmp_path):
    logs[1].write_text('{"no": "log"}\n')
    assert "is not a log of JSON lines" in one_line_error(retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl"]


def test_the_command_counts_rows_and_fails_if_a_photograph_did(logs, tmp_path):
    done = retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl")
    assert (done.returncode, "3 rows" in done.stdout, "1 failed" in done.stdout) == (1, True, True)
    assert "exists already" in one_line_error(retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl"))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".ppm", ".dcm"])
def test_the_record_in_a_result_is_found_and_its_header_is_enough_but_for_webp(tmp_path, suffix, monkeypatch):
    path, record = tmp_path / f"eye{suffix}", Provenance(4, "c0", 1, None, "1f", consistency_db=50.1)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8)
    like = decode_image(written(photography(pixels)), "eye.dcm") if suffix == ".dcm" else None
    path.write_bytes(encode_image(path, pixels, like=like, provenance=record))
    assert path.stat().st_size > 2**16
    if suffix != ".webp":  # which keeps it behind its pixels
        monkeypatch.setattr(Path, "read_bytes", None)
    assert read_record(path) == record


def test_a_file_without_a_record_has_none(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "b.png").write_bytes(b"none")
    assert (read_record(tmp_path / "a.png"), read_record(tmp_path / "b.png")) == (None, None)
