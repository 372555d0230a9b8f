"""A range refuses what is outside it, at construction, in words."""

import math
from dataclasses import dataclass

import pytest

from retinashift.training.config import CropSettings, OptimSettings
from retinashift.training.ranges import ConfigError, Count, Ranged, Within

WAYS = [
    (Within(1), "at least 1", (1, 2), (0.5, -math.inf)),
    (Within(0, above=True), "more than 0", (1e-9,), (0, -1)),
    (Within(0, 1), "0 to 1", (0, 1), (-0.1, 1.1)),
    (Within(0, 1, below=True), "0 to below 1", (0, 0.9), (1,)),
    (Within(0, 1, above=True, below=True), "more than 0 and below 1", (0.5,), (0, 1)),
]


@pytest.mark.parametrize(("allowed", "words", "inside", "outside"), WAYS, ids=lambda value: str(value))
def test_a_range_holds_what_its_words_say(allowed, words, inside, outside):
    assert str(allowed) == words
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in (*outside, math.nan))


def test_settings_are_refused_at_construction_by_their_full_name():
    with pytest.raises(ConfigError, match=r"^crop.size is 0; at least 8 is needed$"):
        CropSettings(size=0)
    with pytest.raises(ConfigError, match=r"^optim.ema is nan; 0 to below 1 is needed$"):
        OptimSettings(ema=math.nan)


def test_numbers_without_a_range_and_those_inside_pass():
    @dataclass(frozen=True)
    class Some(Ranged, section="some"):
        free: int = -1
        count: Count = 1

    assert Some(count=5).count == 5
