"""A known change of colour has the difference that its published pairs have."""

import numpy as np
import pytest
from skimage.color import lab2rgb

from retinashift.evaluation.metrics import measure
from retinashift.evaluation.scores import Result, Subject
from retinashift.evaluation.similarity import colour_differences
from retinashift.imaging.degradation.bicubic import bicubic_pillow


def patch(lab):
    rgb = lab2rgb(np.full((32, 32, 3), lab, np.float64))
    return (255 * rgb).round().astype(np.uint8)


@pytest.mark.parametrize(("a", "b", "expected"), [((50, 0, 0), (60, 0, 0), 9.4), ((50, 2.5, 0), (58, 24, 15), 19.4535)])
def test_pairs_of_the_published_table_have_their_difference(a, b, expected):
    """Sharma, Wu, Dalal, 2005; the first is the change of lightness alone, by the formula."""
    field = np.ones((32, 32), bool)
    found = colour_differences(patch(b), patch(a), field)
    assert found == pytest.approx(np.full(32 * 32, expected), abs=0.5)  # to the rounding to 8 bit


def test_mean_and_95th_percentile_are_of_the_field_alone():
    hr = patch((50, 20, 20))
    sr, field = hr.copy(), np.zeros((32, 32), bool)
    field[:16] = True
    sr[:4], sr[16:] = patch((60, 20, 20))[:4], 0  # a quarter of the field changes
    subject = Subject("eye", hr, bicubic_pillow(hr, 4), field, 4)
    found = measure(Result(subject, "ours", sr), ["colour"]).scores
    changed = colour_differences(sr, hr, field).max()
    assert changed == pytest.approx(9.4, abs=0.5)
    assert found["colour_mean"] == pytest.approx(changed / 4)
    assert found["colour_p95"] == pytest.approx(changed)
