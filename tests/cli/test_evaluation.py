"""Evaluate compares with others' results, finds labels, and says what is missing before it begins."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from builders.command import one_line_error, retinashift
from retinashift.cli import app
from retinashift.cli.evaluation import parse_against, parse_degradation, parse_metrics
from retinashift.data.checks import write_trained_on
from retinashift.data.photographs import FileRef, content_hash
from retinashift.evaluation.metrics import METRICS
from retinashift.evaluation.scores import Metric, Score


@pytest.fixture
def evaluate(checkpoint):
    """The command with one step and one seed."""

    def run(*arguments, checkpoint=checkpoint):
        return retinashift("evaluate", *arguments, "-c", checkpoint, "--steps", 1, "--seeds", 0)

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
    done = evaluate(data / "set", "--against", f"Theirs={data / 'theirs'}", *files)
    assert done.returncode == 0, done.stderr
    assert "Theirs" in done.stdout
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
    assert "exists already" in evaluate(data / "set", "--html", data / "scores.html").stderr


def test_coverage_is_scored_for_a_checkpoint_with_a_head_and_refused_for_another(
    data, evaluate, tiny_pipeline, tmp_path
):
    done = evaluate(data / "set", "--metrics", "coverage", "--json", data / "scores.json")
    assert "no uncertainty head; run retinashift calibrate" in one_line_error(done)
    assert done.stderr.strip().count("\n") == 0
    assert not (data / "scores.json").exists()
    tiny_pipeline(head=True).save_pretrained(tmp_path / "calibrated")
    files = [word for kind in ("json", "csv", "html") for word in (f"--{kind}", data / f"scores.{kind}")]
    done = evaluate(data / "set", "--metrics", "coverage", *files, checkpoint=tmp_path / "calibrated")
    assert done.returncode == 0, done.stderr
    assert "in 90 %" in done.stdout
    means = json.loads((data / "scores.json").read_text())["means"]
    assert 0 <= means["retinashift, 1 step"]["coverage"] <= 1
    assert means["bicubic"]["coverage"] is None
    rows = list(csv.DictReader((data / "scores.csv").read_text().splitlines()))
    assert {row["method"] for row in rows if row["coverage"]} == {"retinashift, 1 step"}
    page = (data / "scores.html").read_text()
    assert "in 90 % (neither more nor less is better)" in page
    assert "standard deviations of the result" in page
    assert page.count("less bicubic") == 1  # one table of differences: coverage is neither gain nor loss


def test_inputs_may_be_degraded_as_the_training_settings_say(data, evaluate, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("data: {path: x}\ndegradation: {kind: realistic, noise: [0.1, 0.2]}\n")
    for given in ("realistic", str(settings)):
        target = tmp_path / f"{Path(given).stem}.json"
        ran = evaluate(data / "set", "--degradation", given, "--json", target, "--metrics", "none")
        assert ran.returncode == 0, ran.stderr
        protocol = json.loads(target.read_text())["protocol"]
        assert protocol["degradation"] == "camera"
    assert protocol["degradation_ranges"]["noise"] == [0.1, 0.2]
    assert parse_degradation("bicubic-pillow").kind == "bicubic-pillow"
    with pytest.raises(ValueError, match="--degradation is 'rain'; bicubic-pillow, camera or a file"):
        parse_degradation("rain")


def test_half_precision_is_scored_under_a_name_of_its_own(data, evaluate):
    def psnr(precision, method):
        target = data / f"{precision}.json"
        options = "--metrics", "none", "--precision", precision, "--json", target
        done = evaluate(data / "set", *options, checkpoint="x4")  # an untrained one is bicubic in any precision
        assert done.returncode == 0, done.stderr
        return json.loads(target.read_text())["means"][method]["psnr_rgb"]

    half, whole = psnr("bf16", "retinashift, 1 step, bf16"), psnr("fp32", "retinashift, 1 step")
    assert half == pytest.approx(whole, abs=0.05)
    assert half != whole


def test_a_missing_or_mis_sized_result_is_named(data, evaluate):
    path = data / "theirs" / "images" / "02_test.tif"
    Image.new("RGB", (16, 16)).save(path)
    done = evaluate(data / "set", "--against", f"T={data / 'theirs'}")
    assert done.returncode == 1
    assert "images/02_test.png, T: " in done.stderr
    assert "(16, 16, 3) and (64, 64, 3)" in done.stderr
    path.unlink()
    assert "has no result named images/02_test" in evaluate(data / "set", "--against", f"T={data / 'theirs'}").stderr


def test_a_mis_sized_label_is_named(data, evaluate):
    Image.new("L", (60, 64)).save(data / "set" / "labels" / "01_manual1.gif")
    assert "images/01_test.png: its label is 60x64, the photograph 64x64" in evaluate(data / "set").stderr


def test_a_metric_of_the_table_is_offered_by_the_help_of_the_command(monkeypatch):
    toy = Metric((Score("toy"),), lambda result: {}, {}, note="needs patience")
    monkeypatch.setitem(METRICS, "toy", toy)
    shown = CliRunner().invoke(app, ["evaluate", "--help"]).stdout
    assert "toy (needs patience)" in " ".join(shown.split())
    assert parse_metrics("toy, vessels") == ("vessels", "toy")


def test_options_of_another_form_are_refused(tmp_path):
    assert parse_metrics("") == ("vessels", "spectrum")
    assert parse_metrics("none") == ()
    assert parse_metrics("st-lpips, vessels") == ("vessels", "st-lpips")
    with pytest.raises(ValueError, match="--metrics vessels,fid: there is no metric 'fid'; allowed are vessels"):
        parse_metrics("vessels,fid")
    assert parse_against([f"a={tmp_path}"]) == {"a": tmp_path}
    for given, reason in ((["x"], "NAME=FOLDER"), ([f"a={tmp_path}"] * 2, "twice"), (["a=/no/where"], "no folder")):
        with pytest.raises(ValueError, match=reason):
            parse_against(given)


def test_a_photograph_that_cannot_be_scored_is_named_and_the_others_are_scored(data, evaluate):
    (data / "set" / "images" / "00_test.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    files = [word for kind in ("json", "html") for word in (f"--{kind}", data / f"scores.{kind}")]
    done = evaluate(data / "set", "--metrics", "none", *files)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("failed: ") and "00_test.png" in line]
    assert "bicubic" in done.stdout
    protocol = json.loads((data / "scores.json").read_text())["protocol"]
    assert (protocol["photographs"], protocol["failed"]) == (2, ["images/00_test.png"])
    for name in ("01", "02"):
        (data / "set" / "images" / f"{name}_test.png").unlink()
    done = evaluate(data / "set", "--metrics", "none")
    assert "no photograph could be scored" in one_line_error(done)
    assert "failed: " in done.stderr


def test_lesions_need_a_file_of_markings_beside_the_photographs(data, evaluate):
    assert "no markings.csv in" in one_line_error(evaluate(data / "set" / "images", "--metrics", "lesions"))
    rows = [f"01_test.png,{expert},Red_small_dots,32,32,2.5" for expert in (1, 2)]
    (data / "set" / "markings.csv").write_text("\n".join(["file,expert,type,x,y,radius", *rows]))
    done = evaluate(data / "set" / "images", "--metrics", "lesions", "--json", data / "scores.json")
    assert done.returncode == 0, done.stderr
    found = {row["image"]: row["false_spots"] for row in json.loads((data / "scores.json").read_text())["rows"]}
    assert found["01_test.png"] is not None
    assert found["02_test.png"] is None  # nobody looked at it


def test_two_checkpoints_are_compared_photograph_by_photograph_and_learned_ones_are_marked(
    data, checkpoint, small_pipeline, tmp_path
):
    other = tmp_path / "other"
    small_pipeline.save_pretrained(other)
    path = data / "set" / "images" / "02_test.png"
    write_trained_on(other, [content_hash(FileRef(path.name, path))])
    files = [word for kind in ("json", "html") for word in (f"--{kind}", data / f"scores.{kind}")]
    options = "--metrics", "none", "--seeds", 0, *files
    done = retinashift("evaluate", data / "set", "-c", checkpoint, "-c", f"{other}/", *options)
    assert done.returncode == 0, done.stderr
    assert f"{other} was trained on 1 of 2 photographs" in done.stderr
    assert "paired by photograph, with the 95 % bootstrap interval" in " ".join(done.stdout.split())
    report = json.loads((data / "scores.json").read_text())
    ours, theirs = f"{checkpoint}, 1 step", f"{other}, 1 step"
    means, difference = report["means"], report["differences"][theirs]["psnr_rgb"]
    assert difference[0] == pytest.approx(means[ours]["psnr_rgb"] - means[theirs]["psnr_rgb"])
    assert difference[1] <= difference[0] <= difference[2]
    assert report["protocol"]["trained_on"] == ["images/02_test.png"]
    assert "images/02_test.png (trained on)" in (data / "scores.html").read_text()
    assert "images/01_test.png (trained on)" not in (data / "scores.html").read_text()
    again = retinashift("evaluate", data / "set", "-c", checkpoint, "-c", checkpoint)
    assert "is given twice" in one_line_error(again)
