"""What is asked for is measured, what cannot be is None, and labels count where there are any."""

import numpy as np
import pytest
import skimage.data

from retinashift.evaluation.ms_ssim import ms_ssim_y
from retinashift.evaluation.scores import SCORES, Estimate, Scores, Subject, mean_scores, measure
from retinashift.evaluation.vessels import vessel_map
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge


@pytest.fixture(scope="module")
def subject():
    hr = skimage.data.retina()[500:740, 400:700].copy()
    field = np.ones(hr.shape[:2], bool)
    return Subject("eye", hr, bicubic_pillow(hr, 4), field, 4, vessel_map(hr, field).vessels)


def test_an_equal_picture_is_perfect_in_every_score(subject):
    scores = measure(subject.hr, subject, ("ms-ssim", "vessels", "spectrum")).scores
    assert scores.psnr_rgb == scores.psnr_y_fov == scores.consistency == float("inf")
    assert scores.ms_ssim_y == pytest.approx(1)
    assert scores.vessel_dice == scores.vessel_thin == scores.sharpness == 1
    assert scores.label_dice == scores.label_thin == 1
    assert scores.label_auc > 0.99  # short of 1 by specks
    assert scores.st_lpips is scores.lpips_alex is None


def test_only_what_is_asked_for_is_measured(subject):
    sr = enlarge(subject.lr, 4, "bicubic")
    measured = measure(sr, subject, ())
    assert (measured.vessels, measured.power) == (None, None)
    assert {name for name in SCORES if getattr(measured.scores, name) is not None} == {
        "psnr_rgb", "psnr_rgb_fov", "psnr_y", "psnr_y_fov", "ssim_y", "ssim_y_fov", "consistency",
    }  # fmt: skip
    scores = measure(sr, subject, ("ms-ssim", "vessels", "spectrum")).scores
    assert scores.ms_ssim_y == ms_ssim_y(sr, subject.hr)
    assert 0 < scores.vessel_dice < 1
    assert 0 < scores.sharpness < 0.5


def test_a_picture_too_small_for_a_score_has_none(retina):
    small = retina[:24, :24]
    subject = Subject("s", small, bicubic_pillow(small, 4), np.ones((24, 24), bool), 4)
    scores = measure(small, subject, ("ms-ssim", "spectrum", "st-lpips", "lpips")).scores
    assert scores.ms_ssim_y is scores.sharpness is scores.st_lpips is scores.lpips_alex is scores.label_dice is None


def test_coverage_is_the_share_of_field_values_within_the_interval_where_something_was_sampled(subject):
    rng = np.random.default_rng(0)
    error = rng.normal(0, 0.02, subject.hr.shape).astype(np.float32)
    sigma = np.full(subject.field.shape, 0.02, np.float32)
    sigma[:40] = 0  # not sampled: does not count, however wrong
    error[:40] = 0.5
    estimate = Estimate(subject.hr / np.float32(255) + error, sigma)
    assert measure(estimate, subject, ("coverage",)).scores.coverage == pytest.approx(0.9, abs=0.003)
    field = np.zeros(subject.field.shape, bool)
    field[:80] = True  # half of it sampled
    within = np.abs(error[40:80]) <= 1.6448536 * 0.02
    assert estimate.coverage(subject.hr, field) == pytest.approx(within.mean(), abs=1e-4)
    field[40:] = False
    assert estimate.coverage(subject.hr, field) is None
    grey = Estimate(estimate.mean[..., 1], sigma)
    assert grey.coverage(subject.hr[..., 1], subject.field) == pytest.approx(0.9, abs=0.005)


def test_an_estimate_is_scored_as_it_is_written_and_plain_pictures_have_no_coverage(subject):
    half_off = Estimate((subject.hr.astype(np.float32) + 0.4) / 255, np.full(subject.field.shape, 1e-3, np.float32))
    scores = measure(half_off, subject, ("coverage",)).scores
    assert scores.psnr_rgb == float("inf")
    assert scores.coverage == 1 - (0.4 / 255 > 1.6448536e-3)
    assert measure(subject.hr, subject, ("coverage",)).scores.coverage is None
    assert measure(half_off, subject, ()).scores.coverage is None


def test_means_are_over_those_that_have_the_score():
    mean = mean_scores([Scores(psnr_rgb=30.0, label_auc=0.9), Scores(psnr_rgb=34.0)])
    assert (mean.psnr_rgb, mean.label_auc, mean.ssim_y) == (32.0, 0.9, None)
