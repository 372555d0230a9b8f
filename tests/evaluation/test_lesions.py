"""Lesions that are kept, faded, erased or invented score what was done to them."""

import numpy as np
import pytest

from retinashift.evaluation.lesions import (
    BACKGROUND_SIGMA,
    agreed,
    contrasts,
    dark_spots,
    false_spots,
    lesions,
    read_marks,
)
from retinashift.evaluation.metrics import measure
from retinashift.evaluation.scores import Mark, Observed, Result, Subject
from retinashift.evaluation.vessels import local_contrast
from retinashift.imaging.degradation.bicubic import bicubic_pillow

SIDE = 160
FIELD = np.ones((SIDE, SIDE), bool)
DOTS = tuple(Mark("Red_small_dots", x, y, 2.5) for x, y in ((40, 40), (40, 110), (110, 40), (110, 110)))
EXUDATE = Mark("Hard_exudates", 76, 76, 6.0)
HEADER = "file,expert,type,confidence,shape,x,y,radius\n"


def photograph(strengths, exudate=0.3, extra=()):
    """Grey 120 with noise, dots of a share of contrast darker, and a disk that is brighter: (SIDE, SIDE, 3) uint8."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shape = 1 + np.random.default_rng(0).normal(0, 0.01, (SIDE, SIDE))
    for mark, strength in (*zip(DOTS, strengths, strict=True), *extra):
        shape -= strength * np.exp(-0.5 * ((x - mark.x) ** 2 + (y - mark.y) ** 2) / 1.8**2)
    shape += exudate * (np.hypot(x - EXUDATE.x, y - EXUDATE.y) <= EXUDATE.radius)
    return np.repeat((120 * shape).round().astype(np.uint8)[..., None], 3, 2)


def scores(sr, lesions=(*DOTS, EXUDATE)):
    hr = photograph([0.3] * 4)
    subject = Subject("eye", hr, bicubic_pillow(hr, 4), FIELD, 4, Observed(lesions=lesions))
    return measure(Result(subject, "ours", sr), ["lesions"]).scores


def test_an_equal_picture_keeps_everything_and_invents_nothing():
    found = scores(photograph([0.3] * 4))
    assert (found["red_dots_kept"], found["red_dots_ratio"], found["red_dots_marks"]) == (1, 1, 4)
    assert found["red_dots_seen"] == 1
    assert (found["hard_exudates_kept"], found["hard_exudates_marks"], found["hard_exudates_small_marks"]) == (1, 1, 0)
    assert found["red_dots_small_marks"] == 4
    assert found["haemorrhages_marks"] == found["false_spots"] == 0
    assert "haemorrhages_kept" not in found


def test_of_four_dots_one_erased_and_one_faded_to_a_third_half_are_kept():
    found = scores(photograph([0.3, 0.0, 0.1, 0.3]))
    assert found["red_dots_kept"] == found["red_dots_seen"] == 0.5
    assert found["red_dots_ratio"] == pytest.approx((1 + 0 + 1 / 3 + 1) / 4, abs=0.03)
    assert found["hard_exudates_kept"] == 1


def test_an_exudate_that_turns_dark_is_lost_and_noise_in_the_result_changes_no_ratio():
    assert scores(photograph([0.3] * 4, exudate=-0.3))["hard_exudates_kept"] == 0
    noisy = photograph([0.3] * 4).astype(int) + np.random.default_rng(1).integers(-20, 21, (SIDE, SIDE, 1))
    assert scores(noisy.clip(0, 255).astype(np.uint8))["red_dots_ratio"] == pytest.approx(1, abs=0.2)


def test_dots_that_the_result_alone_has_are_false_and_those_of_the_reference_are_not():
    invented = Mark("Red_small_dots", 76, 120, 2.5), Mark("Red_small_dots", 130, 76, 2.5)
    assert scores(photograph([0.3] * 4, extra=[(mark, 0.3) for mark in invented]))["false_spots"] == 2
    response = dark_spots(local_contrast(photograph([0.3] * 4, exudate=0), FIELD, BACKGROUND_SIGMA))
    assert response[40, 40] == pytest.approx(0.3, rel=0.1)  # the contrast of a spot of the filter's size
    assert false_spots(response, np.zeros_like(response), FIELD) == 4


def test_marks_that_the_reference_does_not_show_or_the_field_does_not_hold_are_not_counted():
    nothing = Mark("Red_small_dots", 76, 130, 2.5)
    assert scores(photograph([0.3] * 4), (*DOTS, nothing))["red_dots_marks"] == 4
    local = local_contrast(photograph([0.3] * 4), FIELD, BACKGROUND_SIGMA)
    contrast, noise = contrasts(local, ~FIELD, DOTS)
    assert np.isnan(contrast).all()
    assert np.isnan(noise).all()


def test_photographs_nobody_looked_at_have_no_score_and_those_without_lesions_their_false_spots():
    assert not {score.name for score in lesions.scores} & set(scores(photograph([0.3] * 4), None))
    found = scores(photograph([0.3] * 4), ())
    assert (found["false_spots"], found["red_dots_marks"]) == (0, 0)


def test_two_experts_must_agree_on_place_and_type(tmp_path):
    (tmp_path / "markings.csv").write_text(
        HEADER
        + "a.png,1,Red_small_dots,High,circle,50,60,2.5\n"
        + "a.png,2,Red_small_dots,Low,circle,53,64,4\n"  # 5 pixels away: the same; the smaller mark counts
        + "a.png,1,Red_small_dots,High,circle,90,60,2.5\n"
        + "a.png,1,Red_small_dots,High,circle,91,60,2.5\n"  # one expert twice
        + "a.png,2,Haemorrhages,High,circle,90,60,2.5\n"  # another type
        + "a.png,3,Disc,High,circle,10,10,40\n"
        + "a.png,4,Disc,High,circle,10,10,40\n"
        + "b.png,1,Disc,High,circle,10,10,40\n"
    )
    assert read_marks(tmp_path / "markings.csv") == {"a.png": (Mark("Red_small_dots", 50, 60, 2.5),), "b.png": ()}
    assert agreed([("1", Mark("Haemorrhages", 0, 0, 2.5)), ("2", Mark("Haemorrhages", 6, 0, 2.5))]) == ()
    inner = Mark("Haemorrhages", 6, 0, 7)
    assert agreed([("1", Mark("Haemorrhages", 0, 0, 20)), ("2", inner)]) == (inner,)


def test_a_file_of_another_form_is_named(tmp_path):
    for text, reason in (("file,expert\na,1\n", "lacks type, x, y, radius"), ("", "lacks rows"),
                         (HEADER + "a,1,Disc,High,circle,x,1,1\n", "a line that cannot be read")):  # fmt: skip
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_marks(tmp_path / "m.csv")
