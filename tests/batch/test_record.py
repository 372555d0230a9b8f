"""Logs of several machines become one table: one row for each result, its last."""

import json
from pathlib import Path

import pytest

from builders.command import one_line_error, retinashift
from retinashift.batch.jobs import Job
from retinashift.batch.record import Outcome, merge_logs
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


def test_a_table_of_parquet_has_the_rows_of_the_lines(logs, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    merge_logs(logs, tmp_path / "all.jsonl")
    merge_logs(logs, tmp_path / "all.parquet")
    found = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    for row, expected in zip(found, rows(tmp_path / "all.jsonl"), strict=True):
        row["provenance"] = json.loads(row["provenance"])
        assert {key: value for key, value in row.items() if value is not None} == expected


def test_the_command_refuses_other_files_and_leaves_no_table(logs, tmp_path):
    logs[1].write_text('{"no": "log"}\n')
    assert "is not a log of JSON lines" in one_line_error(retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl"]


def test_the_command_counts_rows_and_fails_if_a_photograph_did(logs, tmp_path):
    done = retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl")
    assert (done.returncode, "3 rows" in done.stdout, "1 failed" in done.stdout) == (1, True, True)
    assert "exists already" in one_line_error(retinashift("merge-logs", *logs, "-o", tmp_path / "t.jsonl"))
