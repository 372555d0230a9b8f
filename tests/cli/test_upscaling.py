"""Modes and uncertainty by the command line: what is written, and what it says of itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.command import one_line_error, retinashift
from builders.photographs import decode_map
from retinashift.batch.jobs import Job, maps_of
from retinashift.batch.record import Outcome
from retinashift.cli.shared import Display
from retinashift.cli.upscaling import BatchReport
from retinashift.imaging.files import find_provenance, read_image
from retinashift.imaging.formats.table import FORMATS


@pytest.fixture
def checkpoint(tmp_path, small_pipeline):
    folder = tmp_path / "checkpoint"
    small_pipeline.register_to_config(detail_gain=1.5)
    small_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def with_head(tmp_path, tiny_pipeline):
    tiny_pipeline(head=True).save_pretrained(tmp_path / "head")
    return tmp_path / "head"


@pytest.fixture
def upscale(tmp_path, retina, checkpoint):
    """The command on one photograph, and its result."""
    Image.fromarray(retina[:24, :32]).save(tmp_path / "eye.png")

    def run(name, *options, checkpoint=checkpoint):
        target = tmp_path / name / "eye.png"
        return retinashift("upscale", tmp_path / "eye.png", "-o", target, "-c", checkpoint, *options), target

    return run


def test_the_mode_decides_the_steps_and_the_detail_and_the_result_says_so(upscale):
    made, pixels = {}, {}
    for name, options in {
        "default": (),
        "faithful": ("--mode", "faithful"),
        "realistic": ("--mode", "realistic"),
        "plain": ("--steps", 4),
    }.items():
        done, target = upscale(name, *options)
        assert done.returncode == 0, done.stderr
        made[name] = find_provenance(target.read_bytes(), name)
        pixels[name] = read_image(target).pixels.astype(float)
    assert [made[name].steps for name in made] == [1, 1, 4, 4]
    assert made["realistic"].options == {"precision": "fp32", "detail_gain": 1.5}
    assert all(made[name].options == {"precision": "fp32"} for name in ("default", "faithful", "plain"))
    assert np.array_equal(pixels["default"], pixels["faithful"])
    detail = {name: np.abs(pixels[name] - pixels["faithful"]).mean() for name in ("plain", "realistic")}
    assert detail["realistic"] > 1.2 * detail["plain"] > 0
    assert "wrong" in upscale("wrong", "--mode", "wrong")[0].stderr


def test_uncertainty_lies_beside_the_default_result_which_stays_as_it_is(upscale, with_head):
    done, target = upscale("out", "--uncertainty", checkpoint=with_head)
    assert done.returncode == 0, done.stderr
    numbers, picture = maps_of(target)
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([target.name, numbers.name, picture.name])
    made = find_provenance(target.read_bytes(), "eye")
    assert made.steps == made.ensemble == 1
    sigma, account = decode_map(numbers.read_bytes())
    assert sigma.shape == read_image(target).pixels.shape[:2] == (96, 128)
    assert sigma.min() > 0
    assert account["provenance"]["options"] == made.options
    _, plain = upscale("plain", checkpoint=with_head)
    assert np.array_equal(read_image(plain).pixels, read_image(target).pixels)


def test_maps_are_not_replaced_unasked_and_contradictions_are_one_line(upscale, with_head):
    _, target = upscale("out", "--uncertainty", checkpoint=with_head)
    kept = [path.read_bytes() for path in maps_of(target)]
    target.unlink()
    assert "exists already" in one_line_error(upscale("out", "--uncertainty", checkpoint=with_head)[0])
    assert [path.read_bytes() for path in maps_of(target)] == kept
    for options in (
        ("--mode", "realistic"),
        ("--ensemble", 3),
        ("--steps", 2),
        (),  # without a head
    ):
        done, target = upscale("none", "--uncertainty", *options)
        assert "uncertainty" in one_line_error(done)
        assert done.returncode == 1
        assert not target.parent.exists()


def test_a_codec_that_raises_anything_between_two_photographs_is_one_line_and_the_others_are_done(
    tmp_path, retina, checkpoint, monkeypatch
):
    def odd(data, max_pixels, page):
        raise TypeError("contents must be\n'Dataset'")

    def unwritable(photograph):
        if photograph.pixels.shape[0] == 4 * 12:
            raise KeyError("no such predictor")
        return tiff.encode(photograph)

    tiff = FORMATS["TIFF"]
    source, log = tmp_path / "in", tmp_path / "log.jsonl"
    source.mkdir()
    for name, rows in (("a.png", 24), ("b.webp", 24), ("c.tif", 12), ("d.tif", 24)):
        Image.fromarray(retina[:rows, :32]).save(source / name)
    monkeypatch.setitem(FORMATS, "WebP", replace(FORMATS["WebP"], decode=odd))
    monkeypatch.setitem(FORMATS, "TIFF", replace(tiff, encode=unwritable))
    done = retinashift("upscale", source, "-o", tmp_path / "out", "-c", checkpoint, "--log", log)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "d.tif"]
    unread, unwritten = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "b.webp: truncated or damaged WebP (contents must be 'Dataset')" in unread
    assert "c.tif: internal error (KeyError: 'no such predictor')" in unwritten
    assert "Internal errors of RetinaShift among the failures: 1." in done.stderr
    statuses = [json.loads(line)["status"] for line in log.read_text().splitlines()]
    assert statuses == ["written", "failed", "failed", "written"]


def test_jpeg_of_a_quality_can_be_asked_for_and_is_refused_where_there_is_none(upscale, tmp_path, checkpoint):
    assert "--format jpeg" in one_line_error(upscale("none", "--quality", 50)[0])
    out = tmp_path / "jpeg"
    done = retinashift(
        "upscale", tmp_path / "eye.png", "-o", out, "-c", checkpoint, "--format", "jpeg", "--quality", 50
    )
    assert done.returncode == 0, done.stderr
    assert read_image(out / "eye.jpeg").format == "JPEG"


def test_a_run_in_a_file_has_a_line_every_ten_seconds_and_an_estimate_if_it_is_long(capsys):
    now = 0.0
    job = Job(Path("eye\x1b.png"), Path("out.png"))

    def work(tell):
        nonlocal now
        for seconds, share in ((2.0, 0.5), (6.0, 0.9), (9.0, 1.0), (11.0, 0.25), (12.0, 0.5), (21.5, 1.0)):
            now = seconds
            if share < 1:
                tell(job, share)
            else:
                yield Outcome(job)

    report = BatchReport(Display(clock=lambda: now), 40)
    report.follow(work(report.tell), None)
    assert report.done == 2
    assert capsys.readouterr().err.splitlines() == [
        "About 4 min in all. Ctrl-C stops it; --resume goes on.",
        "Upscaling eye\\x1b.png 25% (1 of 40 done), about 6 min left",
        "Upscaling eye\\x1b.png (2 of 40 done), about 7 min left",
    ]


def test_a_quiet_run_prints_warnings_and_failures_only(upscale, tmp_path, checkpoint, capsys):
    loud, quiet = (upscale(name, *options)[0].stderr for name, options in (("loud", ()), ("quiet", ("--quiet",))))
    assert "1 of 1 written" in loud
    assert all("checkpoint is for" in line for line in quiet.splitlines())  # a warning
    (tmp_path / "none.png").write_bytes(b"no image")
    done = retinashift("upscale", tmp_path / "none.png", "-o", tmp_path / "out", "-c", checkpoint, "--quiet")
    assert [line[:8] for line in done.stderr.splitlines()] == ["failed: "]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("options", "size", "scale"),
    [
        (("--scale", 2), (48, 64), 2),
        (("--scale", 1.5), (36, 48), 1.5),
        (("--longest-side", 40), (30, 40), 1.25),
        (("--scale", 1), (24, 32), 1),
    ],
)
def test_a_result_of_another_size_says_so_in_its_record(upscale, options, size, scale):
    done, target = upscale("sized", *options, "--figure")
    assert done.returncode == 0, done.stderr
    result = read_image(target)
    assert result.pixels.shape[:2] == size
    assert find_provenance(target.read_bytes(), "eye").scale == scale
    again, _ = upscale("sized", *options, "--resume")
    assert "1 were there already" in again.stderr
    other, _ = upscale("sized", "--scale", 3, "--resume")
    assert "not this input's result" in other.stderr


def test_a_size_above_the_checkpoints_is_refused_with_what_to_do(upscale):
    assert "interpolate its result" in one_line_error(upscale("none", "--scale", 5)[0])
    done, target = upscale("none", "--longest-side", 129)
    assert done.returncode == 1
    assert "longest_side is 129 for a picture of 32x24" in done.stderr
    assert not target.exists()
