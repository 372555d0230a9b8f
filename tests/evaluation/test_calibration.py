"""Calibration of a checkpoint on photographs: what it says is what is measured on the same photographs."""

import numpy as np
import pytest

from retinashift.evaluation.calibration import calibrate, measure_coverage, sample_errors


@pytest.fixture
def pipeline(small_pipeline):
    return small_pipeline


def test_on_its_own_photographs_90_percent_lie_within_and_the_bare_spread_does_not_know(pipeline, retina):
    photographs = [("one", retina), ("two", retina[::-1].copy())]
    found = calibrate(pipeline, photographs, counts=(2, 3), source="retina")
    assert list(found.curves) == [2, 3]
    assert found.protocol["photographs"] == 2
    pipeline.register_to_config(calibration=found.to_config())
    measured = measure_coverage(pipeline, photographs, 3)
    at = measured.stated.index(0.9)
    assert measured.calibrated[at] == pytest.approx(0.9, abs=0.01)
    assert abs(measured.spread[at] - 0.9) > 0.05
    assert set(measured.images) == {"one", "two"}


def test_the_same_seed_gives_the_same_values(pipeline, retina):
    one, two = (sample_errors(pipeline, [("eye", retina)], [2], seed=3)[2][0] for _ in range(2))
    assert np.array_equal(one.spreads, two.spreads)
    assert np.array_equal(one.errors, two.errors)


def test_a_checkpoint_without_calibration_and_empty_data_are_refused(pipeline, retina):
    with pytest.raises(ValueError, match="not calibrated"):
        measure_coverage(pipeline, [("eye", retina)], 2)
    with pytest.raises(ValueError, match="no photograph"):
        calibrate(pipeline, [])
    with pytest.raises(ValueError, match="at least 2"):
        calibrate(pipeline, [("eye", retina)], counts=(1,))
