"""What is asked for is measured, what cannot be is None, and labels count where there are any."""

import dataclasses

import numpy as np
import pytest
import skimage.data

from retinashift.evaluation import similarity
from retinashift.evaluation.benchmark import baseline, evaluate
from retinashift.evaluation.metrics import METRICS, chosen_metrics, mean_scores, measure
from retinashift.evaluation.page import Gallery, render_html
from retinashift.evaluation.scores import Estimate, Metric, Observed, Result, Score, Subject
from retinashift.evaluation.vessels import vessel_map
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge
from retinashift.models.uncertainty_head import LEVEL, Z


@pytest.fixture(scope="module")
def subject():
    hr = skimage.data.retina()[500:740, 400:700].copy()
    field = np.ones(hr.shape[:2], bool)
    return Subject("eye", hr, bicubic_pillow(hr, 4), field, 4, Observed(vessel_map(hr, field).vessels))


def scores_of(made, subject, metrics=()):
    """Of an array or an estimate."""
    pixels, sigma = (made.pixels, made.sigma) if isinstance(made, Estimate) else (made, None)
    return measure(Result(subject, "ours", pixels, sigma), metrics).scores


def test_an_equal_picture_is_perfect_in_every_score(subject):
    scores = scores_of(subject.hr, subject, ("vessels", "spectrum"))
    assert scores["psnr_rgb"] == scores["psnr_y_fov"] == float("inf")
    assert scores["consistency"] == 100
    assert scores["vessel_dice"] == scores["vessel_thin"] == scores["sharpness"] == 1
    assert scores["label_dice"] == scores["label_thin"] == 1
    assert scores["label_auc"] > 0.99  # short of 1 by specks


def test_only_what_is_asked_for_is_measured(subject):
    sr = enlarge(subject.lr, 4, "bicubic")
    assert set(scores_of(sr, subject)) == {
        "psnr_rgb", "psnr_rgb_fov", "psnr_y", "psnr_y_fov", "ssim_y", "ssim_y_fov", "consistency",
    }  # fmt: skip
    scores = scores_of(sr, subject, ("vessels", "spectrum"))
    assert 0 < scores["vessel_dice"] < 1
    assert 0 < scores["sharpness"] < 0.5


def test_a_picture_too_small_for_a_score_has_none(retina):
    small = retina[:24, :24]
    subject = Subject("s", small, bicubic_pillow(small, 4), np.ones((24, 24), bool), 4)
    scores = scores_of(small, subject, ("spectrum", "st-lpips", "lpips"))
    assert not {"sharpness", "st_lpips", "lpips_alex", "label_dice"} & set(scores)


def test_coverage_is_the_share_of_field_values_within_the_interval(subject):
    rng = np.random.default_rng(0)
    hr = subject.hr.clip(60, 195)
    subject = dataclasses.replace(subject, hr=hr)
    made = np.rint(hr + rng.normal(0, 10, hr.shape)).astype(np.uint8)
    sigma = np.full(subject.field.shape, 10 / 255, np.float32)
    estimate = Estimate(made, sigma)
    assert scores_of(estimate, subject, ("coverage",)).get("coverage") == pytest.approx(0.9, abs=0.01)
    half = dataclasses.replace(estimate, sigma=sigma / 2)
    assert scores_of(half, subject, ("coverage",))["coverage"] == pytest.approx(0.605, abs=0.01)  # |error| is at most 8
    grey = dataclasses.replace(subject, hr=hr[..., 1].copy(), lr=subject.lr[..., 1].copy())
    found = scores_of(Estimate(made[..., 1].copy(), sigma), grey, ("coverage",))
    assert found["coverage"] == pytest.approx(0.9, abs=0.015)


def test_the_protocol_states_the_interval_of_the_calibration():
    assert similarity.Z == Z
    assert f"{100 * LEVEL:.0f} % is stated" in similarity.coverage.scores[0].note


def test_plain_pictures_have_no_coverage(subject):
    assert scores_of(subject.hr, subject, ("coverage",)).get("coverage") is None
    stated = Estimate(subject.hr, np.full(subject.field.shape, 1e-3, np.float32))
    assert scores_of(stated, subject, ("coverage",))["coverage"] == 1
    assert scores_of(stated, subject, ()).get("coverage") is None


def test_means_are_over_those_that_have_the_score_and_by_its_weight():
    rows = [{"psnr": 30.0, "kept": 0.5, "marks": 2.0, "auc": 0.9}, {"psnr": 34.0, "kept": 1.0, "marks": 6.0}]
    scores = [Score("psnr"), Score("auc"), Score("ssim"), Score("kept", weight="marks")]
    assert mean_scores(rows, scores) == {"psnr": 32.0, "auc": 0.9, "ssim": None, "kept": 0.875}
    assert mean_scores([{"kept": 1.0, "marks": 0.0}], scores[3:]) == {"kept": None}


def test_a_metric_is_added_by_one_entry_of_the_table(subject, tmp_path, monkeypatch):
    """Report, files, page and protocol follow from it; the command too, see tests/cli/test_evaluation.py."""
    brightness = Metric(
        (Score("brightness", "mean level", 1, "none", plotted=True, note="of all values, 0 to 255"),),
        lambda result: {"brightness": float(result.sr.mean())},
        {"light": "as the method returns it"},
    )
    monkeypatch.setitem(METRICS, "brightness", brightness)
    assert chosen_metrics(["brightness", "vessels"]) == ("vessels", "brightness")
    report = evaluate([("eye", subject.hr)], [baseline("nearest", 4)], scale=4, seeds=[0], metrics=["brightness"])
    expected = float(enlarge(subject.lr, 4, "nearest").mean())
    assert report.means()["nearest"]["brightness"] == expected
    assert report.to_json()["rows"][0]["brightness"] == expected
    protocol = report.protocol()
    assert (protocol["brightness"], protocol["light"]) == ("of all values, 0 to 255", "as the method returns it")
    assert report.table("detail") == [["method", "mean level"], ["nearest", f"{expected:.1f}"]]
    report.save_csv(tmp_path / "scores.csv")
    assert "brightness" in (tmp_path / "scores.csv").read_text().splitlines()[0]
    page = render_html(report, Gallery(frozenset()), "t")
    assert "mean level: of all values, 0 to 255." in page
    assert "mean level (neither more nor less is better)" in page


def test_an_unknown_metric_is_refused_with_those_that_are_allowed():
    with pytest.raises(ValueError, match="no metric 'fid'; allowed are vessels"):
        chosen_metrics(["vessels", "fid"])
