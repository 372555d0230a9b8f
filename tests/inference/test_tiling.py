"""Tiles keep every position once and read what surrounds it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retinashift.inference.tiling import plan_tiles


@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40), margin=st.integers(0, 20))
def test_every_position_is_kept_once_and_read_with_its_margin(height, width, side, margin):
    seen = np.zeros((height, width), int)
    for tile in plan_tiles(height, width, side, margin):
        seen[tile.kept] += 1
        for kept, read, length in zip(tile.kept, tile.read, (height, width), strict=True):
            assert 1 <= kept.stop - kept.start <= side
            assert read.start == max(0, kept.start - margin)
            assert read.stop == min(length, kept.stop + margin)
    assert (seen == 1).all()
