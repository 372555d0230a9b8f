"""Calibration of a checkpoint on photographs: what it says is what is measured on the same photographs."""

import numpy as np
import pytest

from builders.pipelines import light_pipeline
from retinashift.evaluation.benchmark import Method, evaluate
from retinashift.evaluation.calibration import Compared, calibrate, measure_coverage
from retinashift.evaluation.scores import Estimate


@pytest.fixture
def pipeline():
    return light_pipeline(std=0.05, head=True)


def test_on_its_own_photographs_each_stated_share_lies_within(pipeline, retina):
    photographs = [("one", retina), ("two", retina[::-1].copy())]
    found = calibrate(pipeline, photographs, source="retina")
    assert (found.protocol["photographs"], found.protocol["source"]) == (2, "retina")
    measured = measure_coverage(pipeline, photographs)
    assert all(found >= stated - 0.005 for found, stated in zip(measured.covered, measured.stated, strict=True))
    assert dict(zip(measured.stated, measured.covered, strict=True))[0.9] < 0.94  # errors are whole levels
    assert set(measured.images) == set(measured.rank_correlations) == {"one", "two"}


def test_the_score_of_the_benchmark_is_the_coverage_that_is_measured(pipeline, retina):
    calibrate(pipeline, [("eye", retina)])

    def run(lr, seed):
        made = pipeline(lr, output_uncertainty=True)
        return Estimate(made.images[0], made.sigma[0])

    (row,) = evaluate([("eye", retina)], [Method("ours", run)], scale=4, seeds=[0], metrics=["coverage"]).rows
    measured = measure_coverage(pipeline, [("eye", retina)]).images["eye"]
    assert row.scores["coverage"] == pytest.approx(measured, abs=1e-6)


def test_a_map_that_follows_the_error_ranks_as_1_and_one_that_contradicts_it_as_minus_1():
    sigma = np.fromfunction(lambda y, x: 1 + y + x / 100, (40, 40))
    errors = np.repeat(sigma[..., None] ** 2, 3, 2)
    field = np.ones((40, 40), bool)
    follows = Compared("eye", np.zeros((40, 40, 3), np.uint8), sigma, errors, field)
    assert follows.rank_correlation() == pytest.approx(1, abs=0.001)
    contradicts = Compared("eye", follows.result, 50 - sigma, errors, field)
    assert contradicts.rank_correlation() == pytest.approx(-1, abs=0.001)


def test_a_checkpoint_without_calibration_and_empty_data_are_refused(pipeline, retina):
    with pytest.raises(ValueError, match="no uncertainty head"):
        calibrate(light_pipeline(), [("eye", retina)])
    with pytest.raises(ValueError, match="no photograph"):
        calibrate(pipeline, [])
    pipeline.register_to_config(calibration=None)
    with pytest.raises(ValueError, match="no calibrated uncertainty head"):
        measure_coverage(pipeline, [("eye", retina)])
