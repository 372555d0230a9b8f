"""Calibration of a checkpoint on photographs: what it says is what is measured on the same photographs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from builders.pipelines import light_pipeline
from retinashift.evaluation.benchmark import Method, degraded, evaluate
from retinashift.evaluation.calibration import SOFTER, calibrate, compare, measure_coverage, rank_correlation
from retinashift.evaluation.scores import Estimate, Result, Subject
from retinashift.evaluation.similarity import error_ratios
from retinashift.imaging.degradation.bicubic import Bicubic
from retinashift.imaging.degradation.pipeline import Camera
from retinashift.models.uncertainty_head import Calibration, Z


@pytest.fixture
def pipeline():
    return light_pipeline(std=0.05, head=True)


def test_on_its_own_photographs_each_stated_share_lies_within(pipeline, retina):
    photographs = [("one", retina), ("two", retina[::-1].copy())]
    found = calibrate(pipeline, photographs, source="retina")
    assert (found.protocol["photographs"], found.protocol["source"]) == (2, "retina")
    measured = measure_coverage(compare(pipeline, photographs), pipeline.calibration)
    assert all(found >= stated - 0.005 for found, stated in zip(measured.covered, measured.stated, strict=True))
    assert dict(zip(measured.stated, measured.covered, strict=True))[0.9] < 0.94  # errors are whole levels
    assert set(measured.images) == set(measured.rank_correlations) == {"one", "two"}


def test_blurred_inputs_get_a_map_that_covers_the_sharp_photograph(pipeline, retina):
    calibration = calibrate(pipeline, [("one", retina), ("two", retina[::-1].copy())])
    energies, factors = zip(*calibration.softness, strict=True)
    assert list(energies) == sorted(energies)
    assert list(factors) == sorted(factors, reverse=True)
    assert factors[-1] == 1
    kept = Calibration.from_config(pipeline.config.calibration).softness
    assert [tuple(knot) for knot in kept] == calibration.softness

    class Blur(Bicubic):
        def __call__(self, hr, scale, generator):
            return super().__call__(ndimage.gaussian_filter(hr, (SOFTER[-1],) * 2 + (0,)), scale, generator)

    (blurred,) = compare(pipeline, [("one", retina)], degradation=Blur())
    assert (error_ratios(blurred) <= Z).mean() > 0.85
    pipeline.register_to_config(calibration=replace(calibration, softness=None).to_config())
    (blurred,) = compare(pipeline, [("one", retina)], degradation=Blur())
    assert (error_ratios(blurred) <= Z).mean() < 0.75


def test_random_inputs_are_those_of_the_benchmark_and_stand_in_the_protocol(pipeline, retina):
    photographs, poor = [("one", retina), ("two", retina)], Camera(noise=(0.02, 0.03))
    first, second = compare(pipeline, photographs, degradation=poor)
    assert np.array_equal(second.subject.lr, degraded(retina, 4, poor, 1))
    assert not np.array_equal(first.subject.lr, second.subject.lr)
    (alone,) = compare(pipeline, photographs[1:], degradation=poor, first=1)
    assert np.array_equal(alone.subject.lr, second.subject.lr)
    protocol = calibrate(pipeline, photographs, degradation=poor).protocol
    assert (protocol["degradation"], protocol["degradation_ranges"]["noise"]) == ("camera", (0.02, 0.03))


def test_the_score_of_the_benchmark_is_the_coverage_that_is_measured(pipeline, retina):
    calibrate(pipeline, [("eye", retina)])

    def run(lr, seed):
        made = pipeline(lr, output_uncertainty=True)
        return Estimate(made.images[0], made.sigma[0])

    (row,) = evaluate([("eye", retina)], [Method("ours", run)], scale=4, seeds=[0], metrics=["coverage"]).rows
    measured = measure_coverage(compare(pipeline, [("eye", retina)]), pipeline.calibration).images["eye"]
    assert row.scores["coverage"] == pytest.approx(measured, abs=1e-6)


def test_a_map_that_follows_the_error_ranks_as_1_and_one_that_contradicts_it_as_minus_1():
    errors = np.fromfunction(lambda y, x: 1 + 4 * y + x / 10, (40, 40)).astype(np.uint8)[..., None].repeat(3, 2)
    field = np.ones((40, 40), bool)
    subject = Subject("eye", np.zeros_like(errors), errors[::4, ::4], field, 4)
    sigma = np.sqrt(errors.mean(2)) / 255
    assert rank_correlation(Result(subject, "ours", errors, sigma)) == pytest.approx(1, abs=0.001)
    assert rank_correlation(Result(subject, "ours", errors, 1 - sigma)) == pytest.approx(-1, abs=0.001)


def test_a_checkpoint_without_calibration_and_empty_data_are_refused(pipeline, retina):
    with pytest.raises(ValueError, match="no uncertainty head"):
        calibrate(light_pipeline(), [("eye", retina)])
    with pytest.raises(ValueError, match="no photograph"):
        calibrate(pipeline, [])
    pipeline.register_to_config(calibration=None)
    with pytest.raises(ValueError, match="no calibrated uncertainty head"):
        measure_coverage(compare(pipeline, [("eye", retina)]), pipeline.calibration)
