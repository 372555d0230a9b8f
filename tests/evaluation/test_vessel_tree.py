"""A vessel that is broken, moved, lost or widened costs what was done to it."""

import numpy as np
import pytest

from retinashift.evaluation.metrics import measure
from retinashift.evaluation.scores import Result, Subject
from retinashift.evaluation.vessels import breaks, calibre_error, centreline_dice
from retinashift.imaging.degradation.bicubic import bicubic_pillow

FIELD = np.ones((120, 200), bool)


def lines(*bars):
    """(120, 200) bool with horizontal bars (top, height, left, right)."""
    mask = np.zeros(FIELD.shape, bool)
    for top, height, left, right in bars:
        mask[top : top + height, left:right] = True
    return mask


TREE = lines((20, 3, 10, 190), (60, 7, 10, 190))


def test_equal_trees_agree_do_not_break_and_are_as_wide():
    assert centreline_dice(TREE, TREE, FIELD) == 1
    assert breaks(TREE, TREE, FIELD)[0] == 0
    assert calibre_error(TREE, TREE, FIELD) == 0


def test_a_gap_is_a_break_and_a_missing_end_or_vessel_is_none():
    gap = TREE.copy()
    gap[15:28, 80:90] = False
    number, length = breaks(gap, TREE, FIELD)
    assert number == 1
    assert length == pytest.approx(180 + 174, abs=12)  # a skeleton is shorter than its bar by the bar's width
    two = gap.copy()
    two[55:70, 120:128] = False
    assert breaks(two, TREE, FIELD)[0] == 2
    short, lost, long_gap = TREE.copy(), TREE.copy(), TREE.copy()
    short[15:28, 170:] = False
    lost[15:28] = False
    long_gap[15:28, 60:120] = False
    assert [breaks(mask, TREE, FIELD)[0] for mask in (short, lost, long_gap)] == [0, 0, 0]


def test_centreline_dice_is_the_harmonic_mean_of_both_shares():
    half = TREE.copy()
    half[15:28] = False  # one of two vessels lost: precision 1, sensitivity a half
    assert centreline_dice(half, TREE, FIELD) == pytest.approx(2 * 0.5 / 1.5, abs=0.02)
    assert centreline_dice(TREE, half, FIELD) == pytest.approx(2 * 0.5 / 1.5, abs=0.02)
    assert centreline_dice(lines((100, 3, 10, 190)), TREE, FIELD) == 0
    assert centreline_dice(np.zeros_like(TREE), TREE, FIELD) is None


def test_the_calibre_of_main_vessels_counts_and_thin_ones_do_not():
    wide = lines((20, 3, 10, 190), (59, 9, 10, 190))  # 9 instead of 7
    assert calibre_error(wide, TREE, FIELD) == pytest.approx(2 / 7, abs=0.02)
    assert calibre_error(lines((19, 5, 10, 190), (60, 7, 10, 190)), TREE, FIELD) == 0
    assert calibre_error(lines((20, 3, 10, 190)), TREE, FIELD) is None


def test_breaks_are_counted_for_each_millimetre_of_a_field_13_wide():
    y = np.arange(120)[:, None]
    whole = 140 * (1 - 0.3 * np.exp(-0.5 * ((y % 30 - 15) / 1.5) ** 2)) * np.ones((1, 200))  # four vessels
    cut = whole.copy()
    cut[35:55, 88:112] = 140
    hr, sr = whole.round().astype(np.uint8), cut.round().astype(np.uint8)
    subject = Subject("eye", hr, bicubic_pillow(hr, 4), FIELD, 4)
    found = measure(Result(subject, "cut", sr), ["vessel-tree"]).scores
    assert found["vessel_breaks"] == pytest.approx(1 / (4 * 13), rel=0.1)
    assert 0.9 < found["vessel_cldice"] < 1
