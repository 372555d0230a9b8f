"""Intervals cover the mean as often as they say, and pairing takes out what photographs have in common."""

import math

import numpy as np
import pytest

from retinashift.evaluation.report import Report, Row, bootstrap_mean


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = bootstrap_mean(rng.normal(30, 2, 40).tolist())
        covered += found.low <= 30 <= found.high
    assert 0.89 <= covered / 200 <= 0.99  # 95 %, less a little for 40 photographs


def test_the_same_values_and_seed_have_the_same_interval():
    values = [31.0, 35.5, 29.1, 33.3]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean([*values, 30.7, 34.2], seed=3) != bootstrap_mean([*values, 30.7, 34.2], seed=4)
    found = bootstrap_mean(values)
    assert min(values) <= found.low < found.mean < found.high <= max(values)


def test_pairing_takes_out_what_photographs_have_in_common():
    rng = np.random.default_rng(0)
    easy = rng.normal(35, 4, 20)
    scores = {"plain": easy, "ours": easy + 0.3 + rng.normal(0, 0.1, 20)}
    rows = [Row(str(n), name, (), {"psnr_rgb": value}) for name in scores for n, value in enumerate(scores[name])]
    report = Report(4, (0,), tuple(rows), metrics=())
    found = report.differences()["plain"]["psnr_rgb"]
    assert found.low > 0.2
    assert found.high < 0.4
    assert report.intervals()["ours"]["psnr_rgb"].low < easy.mean()  # unpaired, the gain would be lost


def test_a_difference_weights_photographs_by_their_marks():
    def row(image, method, kept, marks):
        return Row(image, method, (), {"red_dots_kept": kept, "red_dots_marks": marks})

    rows = [row("a", "plain", 0.5, 1.0), row("b", "plain", 0.5, 3.0), row("c", "plain", None, 0.0)]
    rows += [row("a", "ours", 0.5, 1.0), row("b", "ours", 0.9, 3.0), row("c", "ours", None, 0.0)]
    report = Report(4, (0,), tuple(rows), metrics=("lesions",))
    assert report.differences()["plain"]["red_dots_kept"].mean == pytest.approx(0.3)


def test_infinite_values_have_no_interval():
    assert math.isnan(bootstrap_mean([math.inf, 30.0]).mean)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])
