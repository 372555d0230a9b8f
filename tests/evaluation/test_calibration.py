"""Calibration of a checkpoint on photographs: what it says is what is measured on the same photographs."""

import numpy as np
import pytest
import torch

from retinashift.evaluation.benchmark import Method, evaluate
from retinashift.evaluation.calibration import calibrate, estimator, measure_coverage, sample_errors
from retinashift.imaging.degradation.bicubic import bicubic_pillow


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


def test_the_score_of_the_benchmark_is_the_coverage_that_is_measured(pipeline, retina):
    pipeline.register_to_config(calibration=calibrate(pipeline, [("eye", retina)], counts=(2, 4)).to_config())
    method = Method("mean of 4", estimator(pipeline, 4), stochastic=True)
    (row,) = evaluate([("eye", retina)], [method], scale=4, seeds=[0, 1], metrics=["coverage"]).rows
    measured = measure_coverage(pipeline, [("eye", retina)], 4).images["eye"]
    assert row.scores["coverage"] == pytest.approx(measured, abs=0.02)
    assert row.scores["coverage"] == pytest.approx(0.9, abs=0.02)


def test_the_estimate_is_what_upscaling_with_uncertainty_gives(pipeline, retina):
    pipeline.register_to_config(calibration=calibrate(pipeline, [("eye", retina)], counts=(2,)).to_config())
    lr = bicubic_pillow(retina, 4)
    made = estimator(pipeline, 3)(lr, 7)
    given = pipeline(lr, generator=torch.Generator().manual_seed(7), ensemble_size=3, output_uncertainty=True)
    assert np.array_equal(made.pixels, given.images[0])
    assert np.allclose(made.sigma, given.sigma[0], atol=1e-7)
    assert given.calibrated


def test_a_calibration_that_does_not_fit_is_refused(pipeline, retina):
    with pytest.raises(ValueError, match="not calibrated"):
        estimator(pipeline, 4)
    found = calibrate(pipeline, [("eye", retina)], counts=(3,))
    pipeline.register_to_config(calibration=found.to_config())
    with pytest.raises(ValueError, match="calibrated for 3 or more"):
        estimator(pipeline, 2)
    pipeline.register_to_config(calibration=found.to_config() | {"steps": 2})
    with pytest.raises(ValueError, match="another number of steps"):
        estimator(pipeline, 3)(bicubic_pillow(retina, 4), 0)


def test_a_checkpoint_without_calibration_and_empty_data_are_refused(pipeline, retina):
    with pytest.raises(ValueError, match="not calibrated"):
        measure_coverage(pipeline, [("eye", retina)], 2)
    with pytest.raises(ValueError, match="no photograph"):
        calibrate(pipeline, [])
    with pytest.raises(ValueError, match="at least 2"):
        calibrate(pipeline, [("eye", retina)], counts=(1,))
