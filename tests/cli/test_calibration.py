"""Calibrate writes into the checkpoint what coverage then finds to hold; neither replaces anything unasked."""

import json

import numpy as np
import pytest
from PIL import Image

from builders.command import one_line_error, retinashift
from retinashift.inference.uncertainty import Calibration


@pytest.fixture
def checkpoint(tmp_path, small_pipeline):
    small_pipeline.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def data(tmp_path, retina):
    (tmp_path / "data").mkdir()
    Image.fromarray(retina).save(tmp_path / "data" / "one.png")
    Image.fromarray(np.ascontiguousarray(retina[::-1])).save(tmp_path / "data" / "two.png")
    return tmp_path / "data"


def test_what_was_calibrated_holds_on_the_same_photographs_and_is_drawn_and_written(checkpoint, data, tmp_path):
    before = json.loads((checkpoint / "model_index.json").read_text())
    done = retinashift("calibrate", data, "-c", checkpoint, "--samples", "2,3")
    assert done.returncode == 0, done.stderr
    after = json.loads((checkpoint / "model_index.json").read_text())
    found = Calibration.from_config(after["calibration"])
    assert (found.steps, sorted(found.curves)) == (4, [2, 3])
    assert (found.protocol["source"], found.protocol["photographs"]) == ("data", 2)
    assert {name: value for name, value in after.items() if name != "calibration"} == {
        name: value for name, value in before.items() if name != "calibration"
    }
    picture, figures = tmp_path / "coverage.png", tmp_path / "coverage.json"
    run = ("coverage", data, "-c", checkpoint, "--samples", 3, "--seed", 1, "--plot", picture, "--json", figures)
    done = retinashift(*run)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    at = measured["stated"].index(0.9)
    assert measured["calibrated"][at] == pytest.approx(0.9, abs=0.02)  # other samples of the same photographs
    assert f"stated  90%  calibrated {measured['calibrated'][at]:6.1%}" in done.stdout
    assert set(measured["images"]) == {"one.png", "two.png"}
    assert (measured["data"], measured["seed"], measured["samples"]) == ("data", 1, 3)
    assert len(np.unique(np.asarray(Image.open(picture)).reshape(-1, 3), axis=0)) > 3
    kept = picture.read_bytes(), figures.read_bytes()
    assert "exists already" in one_line_error(retinashift(*run))
    assert (picture.read_bytes(), figures.read_bytes()) == kept


def test_a_calibration_is_replaced_when_that_is_asked_for_and_not_before(checkpoint, data):
    index = checkpoint / "model_index.json"
    run = ("calibrate", data, "-c", checkpoint, "--samples", "2", "--limit", 1)
    assert retinashift(*run).returncode == 0
    first = index.read_bytes()
    assert "--overwrite" in one_line_error(retinashift(*run, "--seed", 1))
    assert index.read_bytes() == first
    assert retinashift(*run, "--seed", 1, "--overwrite").returncode == 0
    assert index.read_bytes() != first
    assert [path.name for path in checkpoint.iterdir() if path.suffix == ".tmp"] == []


def test_what_cannot_be_measured_is_one_line_and_leaves_the_checkpoint_as_it_was(checkpoint, data, tmp_path):
    before = (checkpoint / "model_index.json").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep" / "eye.png")
    for arguments, said in (
        (("coverage", data), "not calibrated; run retinashift calibrate"),
        (("coverage", tmp_path / "empty"), "holds no photograph"),
        (("calibrate", tmp_path / "empty"), "holds no photograph"),
        (("calibrate", data, "--samples", "2,many"), "--samples is '2,many'"),
        (("calibrate", data, "--samples", "1"), "at least 2"),
    ):
        done = retinashift(*arguments, "-c", checkpoint)
        assert said in one_line_error(done)
        assert done.returncode == 1
    done = retinashift("calibrate", tmp_path / "deep", "-c", checkpoint)
    assert "no photograph could be sampled" in one_line_error(done)
    assert "8-bit RGB is needed" in done.stderr
    assert (checkpoint / "model_index.json").read_bytes() == before


def test_a_photograph_that_cannot_be_sampled_is_named_and_the_others_count(checkpoint, data):
    (data / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    done = retinashift("calibrate", data, "-c", checkpoint, "--samples", "2")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "odd.png" in line
    calibration = json.loads((checkpoint / "model_index.json").read_text())["calibration"]
    assert calibration["protocol"]["photographs"] == 2
    done = retinashift("coverage", data, "-c", checkpoint, "--samples", "2")
    assert done.returncode == 1
    assert "of 2" in done.stdout
    assert "odd.png" in done.stderr
