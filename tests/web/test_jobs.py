"""A job is the work of the command line: same bytes, same sidecar; one bad file stops no other; progress and cancel."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from retinashift.batch.jobs import Job, maps_of
from retinashift.batch.upscale import BatchOptions, upscale_files
from retinashift.imaging.files import find_provenance, read_image
from retinashift.inference import streaming
from retinashift.inference.settings import Sampling
from retinashift.web.jobs import JobSettings, run_job, safe_name
from retinashift.web.model import Cancelled, Model


@pytest.fixture(scope="module")
def model():
    model = Model("", "cpu", 4)
    model._load()
    return model


@pytest.fixture
def eye(tmp_path, retina):
    file = tmp_path / "eye.png"
    Image.fromarray(retina[:24, :32]).save(file)
    return file


def run(model, files, folder, settings=None, report=lambda share, text: None, cancelled=None, reference=None):
    folder.mkdir()
    return run_job(model, files, settings or JobSettings(), folder, report, cancelled or threading.Event(), reference)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"steps": 1.0}, {"steps": True}, {"seed": -1}, {"seed": 2**63}, {"samples": 1}, {"samples": 65},
     {"consistency": 1}, {"file_format": "jpeg"}, {"mode": "pretty"}, {"mode": "realistic", "samples": 2},
     {"steps": 1, "samples": 2}],
)  # fmt: skip
def test_settings_outside_their_range_or_against_each_other_are_named(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        JobSettings(**wrong)


@pytest.mark.parametrize(
    ("settings", "options"),
    [(JobSettings(), {}),
     (JobSettings(mode="realistic"), {"sampling": Sampling(mode="realistic")}),
     (JobSettings("faithful", 4, 7, False, 0, "tiff"),
      {"sampling": Sampling(num_inference_steps=4, back_projections=0), "seed": 7}),
     (JobSettings(samples=3, seed=5), {"sampling": Sampling.of_samples(uncertainty=3), "seed": 5})],
)  # fmt: skip
def test_result_sidecar_and_maps_are_those_of_the_command_line(model, eye, tmp_path, settings, options):
    (photo,) = run(model, [eye], tmp_path / "job", settings)
    target = tmp_path / "out" / photo["saved"]
    (outcome,) = upscale_files(model.pipeline(), [Job(eye, target)], BatchOptions(**options, sidecar=True))
    mine = tmp_path / "job" / "0" / photo["saved"]
    assert mine.read_bytes() == target.read_bytes()
    assert [path.read_bytes() for path in maps_of(mine) if path.exists()] == [
        path.read_bytes() for path in maps_of(target) if path.exists()
    ]
    assert photo["maps"] == ([path.name for path in maps_of(mine)] if settings.samples else [])
    sidecars = [json.loads(file.with_name(f"{file.name}.json").read_text()) for file in (mine, target)]
    for sidecar in sidecars:
        del sidecar["written"]
    assert sidecars[0] == sidecars[1]
    assert photo["provenance"] == vars(outcome.record) == vars(find_provenance(mine.read_bytes(), "mine"))


def test_a_photograph_that_fails_is_named_without_its_path_and_the_others_are_done(model, eye, tmp_path):
    bad = tmp_path / "<b>.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    bad_manifest, good = run(model, [bad, eye], tmp_path / "job")
    assert bad_manifest["name"] == "b_.png"
    assert str(tmp_path) not in bad_manifest["error"]
    assert (good["number"], good["saved"]) == (1, "eye_x4.png")


def test_the_share_only_grows_and_the_text_tells_which_photograph(model, eye, tmp_path, retina, monkeypatch):
    monkeypatch.setattr(streaming, "BAND_ROWS", 16)
    tall, told = tmp_path / "tall.png", []
    Image.fromarray(retina[:, :16]).save(tall)
    settings = JobSettings(steps=2, samples=3)
    run(model, [tall, eye, eye], tmp_path / "job", settings, lambda *what: told.append(what))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1
    for number in (1, 2, 3):
        (first, *_), *_ = [what for what in told if f"photograph {number} of 3" in what[1]], None
        assert first[0] == pytest.approx((number - 1) / 3)
    drawing = [share for share, text in told if "photograph 1 of 3, tall.png: 3 samples of 2 steps, " in text]
    assert len(set(drawing)) >= 3 * 2 * 2  # several bands in each step of each sample


def test_cancelling_ends_a_job_within_a_step_and_the_next_one_runs(model, eye, tmp_path):
    cancelled, told = threading.Event(), []

    def report(share, text):
        told.append(text)
        if "2 steps" in text:
            cancelled.set()

    with pytest.raises(Cancelled):
        run(model, [eye, eye], tmp_path / "job", JobSettings(steps=2), report=report, cancelled=cancelled)
    assert not any("photograph 2" in text for text in told)
    assert not list((tmp_path / "job").rglob("*.png"))
    assert "error" not in run(model, [eye], tmp_path / "next")[0]


def test_steps_beyond_the_training_and_a_reference_for_two_are_refused(model, eye, tmp_path):
    with pytest.raises(ValueError, match="1 to 4"):
        run(model, [eye], tmp_path / "a", JobSettings(steps=5))
    with pytest.raises(ValueError, match="one reference was given for 2"):
        run(model, [eye, eye], tmp_path / "b", reference=eye)


def test_consistency_off_leaves_the_estimate_as_it_is(model, eye, tmp_path):
    on, off = (run(model, [eye], tmp_path / str(flag), JobSettings(consistency=flag))[0] for flag in (True, False))
    assert (on["provenance"]["back_projections"] > 0, off["provenance"]["back_projections"]) == (True, 0)
    pictures = [read_image(tmp_path / flag / "0" / "eye_x4.png").pixels for flag in ("True", "False")]
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b\\c.png", "", "...", "\x00", "é" * 300, "a" * 300 + ".png"])
def test_safe_names_are_one_plain_part_of_a_path(name):
    safe = safe_name(name)
    assert 0 < len(safe) <= 80
    assert not set(safe) & set('/\\<>"&\0 ')
    assert not safe.startswith(".")


def test_an_error_of_ours_is_one_photographs_failure_and_cancelling_is_none(model, eye, tmp_path, monkeypatch):
    from retinashift.web import jobs

    calls = []

    def drawn(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise TypeError(f"no view of {eye}")
        return write_views(*arguments)

    write_views = jobs.write_views
    monkeypatch.setattr(jobs, "write_views", drawn)
    failed, good = run(model, [eye, eye], tmp_path / "job")
    assert "internal error (TypeError: no view of eye.png)" in failed["error"]
    assert "error" not in good
