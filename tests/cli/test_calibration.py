"""Calibrate writes into the checkpoint what coverage then finds to hold; neither replaces anything unasked."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from builders.command import one_line_error, retinashift
from retinashift.models.uncertainty_head import Calibration


@pytest.fixture
def checkpoint(tmp_path, tiny_pipeline):
    tiny_pipeline().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def data(tmp_path, retina):
    (tmp_path / "data").mkdir()
    Image.fromarray(retina).save(tmp_path / "data" / "one.png")
    Image.fromarray(np.ascontiguousarray(retina[::-1])).save(tmp_path / "data" / "two.png")
    return tmp_path / "data"


def test_a_head_is_trained_and_calibrated_and_what_it_states_holds(checkpoint, data, tmp_path):
    before = json.loads((checkpoint / "model_index.json").read_text())
    weights = (checkpoint / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "pool").mkdir()
    Image.fromarray(skimage.data.retina()[:320, :320]).save(tmp_path / "pool" / "eye.png")
    assert "--train FOLDER" in one_line_error(retinashift("calibrate", data, "-c", checkpoint))
    done = retinashift("calibrate", data, "-c", checkpoint, "--train", tmp_path / "pool", "--steps", 2)
    assert done.returncode == 0, done.stderr
    after = json.loads((checkpoint / "model_index.json").read_text())
    found = Calibration.from_config(after["calibration"])
    assert (found.protocol["source"], found.protocol["photographs"]) == ("data", 2)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"calibration", "uncertainty_head"}
    assert (checkpoint / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    picture, maps, figures = (tmp_path / name for name in ("coverage.png", "maps.png", "coverage.json"))
    run = ("coverage", data, "-c", checkpoint, "--plot", picture, "--figure", maps, "--json", figures)
    done = retinashift(*run)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    at = measured["stated"].index(0.9)
    assert measured["covered"][at] == pytest.approx(0.9, abs=0.01)  # the same photographs
    assert f"stated  90%  covered {measured['covered'][at]:6.1%}" in done.stdout
    assert set(measured["images"]) == {"one.png", "two.png"}
    assert measured["data"] == "data"
    for drawn in (picture, maps):
        assert len(np.unique(np.asarray(Image.open(drawn)).reshape(-1, 3), axis=0)) > 3
    kept = picture.read_bytes(), figures.read_bytes()
    assert "exists already" in one_line_error(retinashift(*run))
    assert (picture.read_bytes(), figures.read_bytes()) == kept


@pytest.fixture
def with_head(tmp_path, tiny_pipeline):
    pipeline = tiny_pipeline(head=True)
    pipeline.register_to_config(calibration=None)
    pipeline.save_pretrained(tmp_path / "head")
    return tmp_path / "head"


def test_a_calibration_is_replaced_when_that_is_asked_for_and_not_before(with_head, data):
    index = with_head / "model_index.json"
    run = ("calibrate", data, "-c", with_head)
    assert retinashift(*run, "--limit", 1).returncode == 0
    first = index.read_bytes()
    assert "--overwrite" in one_line_error(retinashift(*run))
    assert index.read_bytes() == first
    assert retinashift(*run, "--overwrite", "--degradation", "camera").returncode == 0
    assert json.loads(index.read_text())["calibration"]["protocol"]["degradation"] == "camera"
    assert [path.name for path in with_head.iterdir() if path.suffix == ".tmp"] == []


def test_what_cannot_be_measured_is_one_line_and_leaves_the_checkpoint_as_it_was(with_head, data, tmp_path):
    before = (with_head / "model_index.json").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep" / "eye.png")
    for arguments, said in (
        (("coverage", data), "no calibrated uncertainty head; run retinashift calibrate"),
        (("calibrate", tmp_path / "empty"), "holds no photograph"),
    ):
        done = retinashift(*arguments, "-c", with_head)
        assert said in one_line_error(done)
        assert done.returncode == 1
    done = retinashift("calibrate", tmp_path / "deep", "-c", with_head)
    assert "no photograph could be compared" in one_line_error(done)
    assert "the protocol scores 8-bit photographs" in done.stderr
    assert (with_head / "model_index.json").read_bytes() == before


def test_a_photograph_that_cannot_be_read_is_named_and_the_others_count(with_head, data):
    (data / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    done = retinashift("calibrate", data, "-c", with_head)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "odd.png" in line
    calibration = json.loads((with_head / "model_index.json").read_text())["calibration"]
    assert calibration["protocol"]["photographs"] == 2
