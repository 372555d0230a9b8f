"""Evaluate compares with others' results, finds labels, and says what is missing before it begins."""

import contextlib
import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift import cli
from retinashift.cli.evaluation import parse_against, parse_degradation, parse_metrics
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.evaluation.calibration import calibrate
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.light_net import LightNet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LightNet(factor=4, width=8, depth=1, time_width=16)
    scheduler = ResShiftScheduler(4, kappa=0.06, prediction_type="residual", input_scaling="none")
    ResShiftPipeline(net, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def evaluate(monkeypatch, checkpoint):
    """(exit code, standard output, standard error) of the command in this process."""

    def run(*arguments, checkpoint=checkpoint):
        given = ["retinashift", "evaluate", *arguments, "-c", checkpoint, "--steps", 1, "--seeds", 0]
        monkeypatch.setattr(sys, "argv", [str(word) for word in given])
        stdout, stderr, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                cli.main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        return code, stdout.getvalue(), stderr.getvalue()

    return run


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("set/images", "set/labels", "theirs/images"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("01", "02"):
        pixels = rng.integers(30, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "images" / f"{name}_test.png")
        Image.fromarray(pixels).save(tmp_path / "theirs" / "images" / f"{name}_test.tif")
        label = (rng.random((64, 64)) < 0.1).astype(np.uint8) * 255
        Image.fromarray(label).save(tmp_path / "set" / "labels" / f"{name}_manual1.gif")
    return tmp_path


def test_results_of_others_and_labels_are_scored_and_written(data, evaluate):
    files = [word for kind in ("json", "csv", "html") for word in (f"--{kind}", data / f"scores.{kind}")]
    code, printed, errors = evaluate(data / "set", "--against", f"Theirs={data / 'theirs'}", *files)
    assert code == 0, errors
    assert "Theirs" in printed
    report = json.loads((data / "scores.json").read_text())
    assert report["means"]["Theirs"]["psnr_rgb"] == "inf"
    assert report["means"]["Theirs"]["vessel_dice"] == 1
    assert report["means"]["Theirs"]["wall_seconds"] is None
    assert 0 < report["means"]["bicubic"]["label_auc"] < 1
    assert report["differences"]["bicubic"]["psnr_rgb"][0] == pytest.approx(
        report["means"]["retinashift, 1 step"]["psnr_rgb"] - report["means"]["bicubic"]["psnr_rgb"]
    )
    rows = list(csv.DictReader((data / "scores.csv").read_text().splitlines()))
    assert [(row["image"], row["method"]) for row in rows][3] == ("images/01_test.png", "Theirs")
    assert float(rows[3]["psnr_rgb"]) == float("inf")
    assert rows[3]["wall_seconds"] == ""
    assert "Theirs" in (data / "scores.html").read_text()
    assert "exists already" in evaluate(data / "set", "--html", data / "scores.html")[2]


def test_coverage_is_scored_for_a_calibrated_checkpoint_and_refused_for_another(
    data, evaluate, checkpoint, small_pipeline, retina, tmp_path
):
    _, _, errors = evaluate(data / "set", "--metrics", "coverage", "--json", data / "scores.json")
    assert errors.strip().count("\n") == 0
    assert "not calibrated; run retinashift calibrate" in errors
    assert not (data / "scores.json").exists()
    small_pipeline.register_to_config(calibration=calibrate(small_pipeline, [("r", retina)], counts=(2,)).to_config())
    small_pipeline.save_pretrained(tmp_path / "calibrated")
    files = [word for kind in ("json", "csv", "html") for word in (f"--{kind}", data / f"scores.{kind}")]
    code, printed, errors = evaluate(
        data / "set", "--metrics", "coverage", "--samples", 2, *files, checkpoint=tmp_path / "calibrated"
    )
    assert code == 0, errors
    assert "in 90 %" in printed
    means = json.loads((data / "scores.json").read_text())["means"]
    assert 0 < means["retinashift, mean of 2"]["coverage"] < 1
    assert means["retinashift, 1 step"]["coverage"] is means["bicubic"]["coverage"] is None
    rows = list(csv.DictReader((data / "scores.csv").read_text().splitlines()))
    assert {row["method"] for row in rows if row["coverage"]} == {"retinashift, mean of 2"}
    page = (data / "scores.html").read_text()
    assert "in 90 % (neither more nor less is better)" in page
    assert "calibrated standard deviations of the mean" in page
    assert page.count("less bicubic") == 1  # one table of differences: coverage is neither gain nor loss


def test_inputs_may_be_degraded_as_the_training_settings_say(data, evaluate, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("data: {path: x}\ndegradation: {kind: realistic, noise: [0.1, 0.2]}\n")
    for given in ("realistic", str(settings)):
        target = tmp_path / f"{Path(given).stem}.json"
        _, _, errors = evaluate(data / "set", "--degradation", given, "--json", target, "--metrics", "none")
        protocol = json.loads(target.read_text())["protocol"]
        assert protocol["degradation"] == "realistic", errors
    assert protocol["degradation_ranges"]["noise"] == [0.1, 0.2]
    assert parse_degradation("bicubic-pillow").kind == "bicubic-pillow"
    with pytest.raises(ValueError, match="--degradation is 'rain'; bicubic-pillow, realistic or a file"):
        parse_degradation("rain")


def test_a_missing_or_mis_sized_result_is_named(data, evaluate):
    path = data / "theirs" / "images" / "02_test.tif"
    Image.new("RGB", (16, 16)).save(path)
    code, _, errors = evaluate(data / "set", "--against", f"T={data / 'theirs'}")
    assert code == 1
    assert "images/02_test.png, T: " in errors
    assert "(16, 16, 3) and (64, 64, 3)" in errors
    path.unlink()
    assert "has no result named images/02_test" in evaluate(data / "set", "--against", f"T={data / 'theirs'}")[2]


def test_a_mis_sized_label_is_named(data, evaluate):
    Image.new("L", (60, 64)).save(data / "set" / "labels" / "01_manual1.gif")
    assert "images/01_test.png: its label is 60x64, the photograph 64x64" in evaluate(data / "set")[2]


def test_options_of_another_form_are_refused(tmp_path):
    assert parse_metrics("") == ("ms-ssim", "vessels", "spectrum")
    assert parse_metrics("none") == ()
    assert parse_metrics("st-lpips, vessels") == ("vessels", "st-lpips")
    with pytest.raises(ValueError, match="--metrics has 'fid'; allowed are ms-ssim"):
        parse_metrics("vessels,fid")
    assert parse_against([f"a={tmp_path}"]) == {"a": tmp_path}
    for given, reason in ((["x"], "NAME=FOLDER"), ([f"a={tmp_path}"] * 2, "twice"), (["a=/no/where"], "no folder")):
        with pytest.raises(ValueError, match=reason):
            parse_against(given)
