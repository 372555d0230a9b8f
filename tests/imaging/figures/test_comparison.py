"""Input, bicubic and result side by side, of any kind of pixels."""

import numpy as np
import pytest

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.figures import (
    BAR,
    FOOT,
    GAP,
    MARK,
    SIDE,
    busiest,
    changed,
    compared,
    shown,
)


@pytest.mark.parametrize("kind", ["rgb", "grey", "deep", "alpha"])
def test_the_lower_row_shows_the_crop_of_most_change_pixel_by_pixel(retina, kind):
    lr = {
        "rgb": retina,
        "grey": retina[..., 1],
        "deep": retina.astype(np.uint16) * 257,
        "alpha": np.dstack([retina, np.full(retina.shape[:2], 255, np.uint8)]),
    }[kind]
    sr = np.dstack([enlarge(lr[..., i], 4, "nearest") for i in range(lr.shape[-1])]) if lr.ndim == 3 else enlarge(
        lr, 4, "nearest"
    )  # fmt: skip
    shown_pixels = shown(sr)
    sr = sr.copy()
    sr[200:320, 280:400] ^= 64 * (257 if kind == "deep" else 1)  # where it differs most from bicubic
    figure = compared(lr, sr, caption="faithful, seed 0")
    assert figure.shape == (BAR + 2 * (SIDE + GAP) + FOOT, GAP + 3 * (SIDE + GAP), 3)
    left, top = GAP + 2 * (SIDE + GAP), BAR + SIDE + GAP
    detail = figure[top : top + SIDE : 4, left : left + SIDE : 4]  # four screen pixels to one of the result
    rows, columns = busiest(changed(shown(sr), enlarge(shown(lr), 4, "bicubic"), 4), SIDE // 4, 4)
    assert abs(rows.start - 200) <= 8
    assert abs(columns.start - 280) <= 8
    assert np.array_equal(detail, shown(sr)[rows, columns])
    assert not np.array_equal(detail, shown_pixels[rows, columns])
    input_detail = figure[top : top + SIDE : 16, GAP : GAP + SIDE : 16]  # sixteen to one of the input
    small = tuple(slice(part.start // 4, part.stop // 4) for part in (rows, columns))
    assert np.array_equal(input_detail, shown(lr)[small])
    for column in range(3):  # and the place is marked in each whole picture
        whole = figure[BAR : BAR + SIDE, GAP + column * (SIDE + GAP) :][:, :SIDE]
        assert (whole == MARK).all(-1).any()


def test_the_crop_lies_where_the_uncertainty_is_largest(retina):
    sigma = np.zeros((512, 512), np.float32)
    sigma[8:120, 380:500] = 0.02
    figure = compared(retina, enlarge(retina, 4, "bicubic"), sigma=sigma)
    rows, columns = np.nonzero((figure[BAR : BAR + SIDE, GAP : GAP + SIDE] == MARK).all(-1))
    assert rows.max() < SIDE / 3
    assert columns.min() > SIDE / 2


def test_the_busiest_square_is_found_and_no_larger_than_the_picture():
    plain = np.full((60, 80, 3), 90, np.uint8)
    other = plain.copy()
    other[30:40, 50:60] = 120
    rows, columns = busiest(changed(other, plain), 12)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (12, 12)
    assert (other[rows, columns] != plain[rows, columns]).sum() == 300
    assert busiest(changed(plain, plain), 500) == (slice(0, 60), slice(0, 60))
