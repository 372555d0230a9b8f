"""The log of a run: one object a line, curves and pictures for TensorBoard, nothing twice after a resume."""

import json

import numpy as np

from retinashift.training.state import RunRecord


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_events_are_lines_and_curves(tmp_path):
    record = RunRecord(tmp_path)
    record.write("train", 1, {"loss": 0.5})
    record.board.add_image("sample", np.zeros((4, 4, 3), np.uint8), 1, dataformats="HWC")
    record.board.close()
    assert lines(tmp_path) == [{"event": "train", "step": 1, "loss": 0.5}]
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_resumed_log_drops_what_is_done_again_and_a_line_cut_short(tmp_path):
    record = RunRecord(tmp_path)
    for step in range(1, 6):
        record.write("train", step, {})
    record.board.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"event": "tra')
    RunRecord(tmp_path, resume_step=3).board.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_run_from_the_start_begins_a_new_log(tmp_path):
    for step in (0, 1):
        record = RunRecord(tmp_path)
        record.write("validation", step, {})
        record.board.close()
    assert [line["step"] for line in lines(tmp_path)] == [1]
