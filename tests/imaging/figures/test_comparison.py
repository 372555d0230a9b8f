"""Input, bicubic and result side by side, of any kind of pixels."""

import numpy as np
import pytest

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.figures.comparison import BAR, GAP, SIDE, compared


@pytest.mark.parametrize("kind", ["rgb", "grey", "deep", "alpha"])
def test_the_last_column_shows_the_result_and_its_middle_pixel_by_pixel(retina, kind):
    lr = {
        "rgb": retina,
        "grey": retina[..., 1],
        "deep": retina.astype(np.uint16) * 257,
        "alpha": np.dstack([retina, np.full(retina.shape[:2], 255, np.uint8)]),
    }[kind]
    sr = np.dstack([enlarge(lr[..., i], 4, "nearest") for i in range(lr.shape[-1])]) if lr.ndim == 3 else enlarge(
        lr, 4, "nearest"
    )  # fmt: skip
    figure = compared(lr, sr)
    assert figure.shape == (BAR + 2 * (SIDE + GAP), GAP + 3 * (SIDE + GAP), 3)
    left, top = GAP + 2 * (SIDE + GAP), BAR + SIDE + GAP
    detail = figure[top : top + SIDE : 4, left : left + SIDE : 4]  # four screen pixels to one of the result
    shown = sr if sr.ndim == 2 else sr[..., :3]
    shown = np.rint(shown / 257).astype(np.uint8) if kind == "deep" else shown
    middle = shown[196:316, 196:316]
    assert np.array_equal(detail, np.broadcast_to(middle[..., None] if middle.ndim == 2 else middle, (120, 120, 3)))
