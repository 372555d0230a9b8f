"""Curves start, end and peak where they should, whatever their number and length."""

import numpy as np
import pytest

from retinashift.imaging.figures import COLOURS, PAPER, draw_curves


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a colour inside the axes, names and labels left out."""
    rows, columns = np.nonzero((picture[60:570] == colour).all(-1))
    return rows + 60, columns


def test_a_curve_runs_from_the_left_edge_to_the_right_and_a_higher_value_stands_higher():
    rows, columns = where(draw_curves({"a": [0.0, 0.5, 1.0]}, across="t"), COLOURS[0])
    assert columns.min() == pytest.approx(90, abs=8)
    assert columns.max() == pytest.approx(1160, abs=8)
    assert rows[columns < 95].mean() == pytest.approx(560, abs=8)
    assert rows[columns > 1155].mean() == pytest.approx(70, abs=8)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_curve_has_a_colour_of_its_own(count):
    picture = draw_curves({f"c{i}": [0.1 * i, 0.9, 0.2 * i] for i in range(count)}, across="t")
    for number, colour in enumerate(COLOURS):
        assert bool(len(where(picture, colour)[0])) == (number < count)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 1e-9], [5.0, 1.0] * 40])
def test_flat_tiny_and_long_curves_are_drawn_on_the_paper(values):
    picture = draw_curves({"a": values}, across="t")
    assert (picture.shape, picture.dtype) == ((640, 1200, 3), np.uint8)
    assert tuple(picture[0, 0]) == PAPER
    assert (picture != PAPER).any()
