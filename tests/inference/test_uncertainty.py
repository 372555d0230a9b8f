"""Spread of samples and what it means: exact, in constant memory, and right where the truth is known."""

import numpy as np
import pytest
import torch

from retinashift.inference.uncertainty import NEIGHBOURS, Calibration, SampleMean, Z, coverage, fit_curve


def samples(count, shape=(3, 20, 16), seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("band", [1, 7, 20])
def test_mean_and_variance_are_those_of_all_samples_at_once_however_they_are_cut(band):
    given = samples(5)
    found = SampleMean(given.shape[1:], spread=True)
    for sample in given:
        found.add(iter(sample[None].split(band, dim=-2)))
    assert torch.allclose(found.mean[0], given.mean(0), atol=1e-6)
    assert torch.allclose(torch.cat(list(found.bands()), -2)[0], given.mean(0), atol=1e-6)
    variance = given.var(0).mean(0) / 4  # of values in [0, 1]
    here = (10, 8)
    half = NEIGHBOURS // 2
    near = variance[here[0] - half : here[0] + half + 1, here[1] - half : here[1] + half + 1].mean()
    assert found.spread()[here] == pytest.approx(float(near.sqrt()), rel=1e-4)


def test_a_lone_disagreement_counts_for_the_25_pixels_around_it():
    found = SampleMean((1, 11, 11), spread=True)
    for value in (-0.5, 0.5):
        sample = torch.zeros(1, 1, 11, 11)
        sample[..., 5, 5] = value
        found.add(iter([sample]))
    expected = np.zeros((11, 11))
    expected[5, 5] = np.sqrt(0.5 / 4 / 25)  # variance of the two, of values in [0, 1], over 5x5
    assert np.allclose(found.spread(), expected, atol=1e-6)


def test_the_spread_of_a_tall_picture_does_not_show_where_it_was_cut(monkeypatch):
    def spread():
        found = SampleMean((3, 40, 8), spread=True)
        for sample in samples(3, (3, 40, 8)):
            found.add(iter([sample[None]]))
        return found.spread()

    whole = spread()
    monkeypatch.setattr("retinashift.inference.uncertainty.BAND", 7)
    assert torch.equal(spread(), whole)


def test_nothing_sampled_is_no_spread_even_beside_what_was():
    given = samples(4)
    given[..., :8] = 0.25
    found = SampleMean(given.shape[1:], spread=True)
    for sample in given:
        found.add(iter([sample[None]]))
    spread = found.spread()
    assert (spread[:, :8] == 0).all()
    assert (spread[:, 8:] > 0).all()


def test_the_mean_alone_has_no_spread_and_says_so():
    found = SampleMean((3, 4, 4), spread=False)
    found.add(iter([torch.zeros(1, 3, 4, 4)]))
    with pytest.raises(ValueError, match="at least 2"):
        found.spread()


@pytest.mark.parametrize("tails", ["normal", "laplace"])
def test_a_calibrated_interval_of_90_percent_covers_90_percent_at_small_and_at_large_spreads(tails):
    chance = np.random.default_rng(0)

    def draw():
        truth = chance.uniform(0.001, 0.02, 200_000)  # true deviations, of which the spread shows the half
        return truth / 2, np.abs(getattr(chance, tails)(0, truth))

    spreads, errors = draw()
    found = Calibration(4, {4: fit_curve(spreads, errors)}, {})
    spreads, errors = draw()  # others
    sigma = found.sigma(spreads[None], 4)[0]
    for part in (spreads < 0.004, spreads > 0.006):
        assert coverage(errors[part], sigma[part], [Z])[0] == pytest.approx(0.9, abs=0.01)


def test_sigma_never_falls_as_the_spread_rises_and_is_0_at_0():
    chance = np.random.default_rng(1)
    found = Calibration(4, {4: fit_curve(chance.uniform(0.1, 1, 500), chance.uniform(0, 1, 500))}, {})
    sigma = found.sigma(np.linspace(0, 3, 400)[None], 4)[0]
    assert sigma[0] == 0
    assert (np.diff(sigma) >= 0).all()
    assert sigma[-1] > sigma[200]  # beyond the last knot, too


def test_the_curve_of_the_largest_number_of_samples_not_above_is_taken():
    found = Calibration(4, {2: ((1.0,), (2.0,)), 8: ((1.0,), (3.0,))}, {})
    one = np.ones((1, 1))
    assert [float(found.sigma(one, count)[0, 0]) for count in (2, 7, 8, 100)] == [2, 2, 3, 3]
    with pytest.raises(ValueError, match="2 or more"):
        Calibration(4, {2: ((1.0,), (2.0,))}, {}).sigma(one, 1)


def test_a_calibration_comes_back_from_its_plain_form():
    found = Calibration(4, {2: ((0.1, 0.2), (0.3, 0.4))}, {"source": "val"})
    assert Calibration.from_config(found.to_config()) == found


@pytest.mark.parametrize(
    "plain", [{}, {"steps": 4, "curves": {"2": [[2, 1], [1, 2]]}, "protocol": {}}, {"steps": 4, "curves": 3}]
)
def test_a_calibration_that_is_none_is_refused_in_one_line(plain):
    with pytest.raises(ValueError, match="calibrate it again"):
        Calibration.from_config(plain)


def test_the_pipeline_tells_the_spread_of_its_samples_and_their_mean(tiny_pipeline):
    pipeline = tiny_pipeline()
    lr = np.random.default_rng(0).random((8, 6, 3), np.float32)
    found = pipeline(lr, ensemble_size=3, output_uncertainty=True)
    assert found.sigma[0].shape == (32, 24)
    assert (found.sigma[0] > 0).all()
    assert not found.calibrated
    assert np.array_equal(found.images[0], pipeline(lr, num_inference_steps=4, ensemble_size=3).images[0])


def test_the_calibration_travels_with_the_checkpoint_and_holds_for_its_steps_only(tiny_pipeline, tmp_path):
    pipeline = tiny_pipeline()
    pipeline.register_to_config(calibration=Calibration(4, {2: ((0.5, 1.0), (5.0, 10.0))}, {}).to_config())
    pipeline.save_pretrained(tmp_path)
    again = type(pipeline).from_pretrained(tmp_path)
    lr = np.random.default_rng(0).random((8, 6, 3), np.float32)
    bare = tiny_pipeline()(lr, ensemble_size=2, output_uncertainty=True)
    found = again(lr, ensemble_size=2, output_uncertainty=True)
    assert found.calibrated
    assert not again(lr, num_inference_steps=3, ensemble_size=2, output_uncertainty=True).calibrated
    expected = Calibration.from_config(again.config.calibration).sigma(bare.sigma[0], 2)
    assert np.array_equal(found.sigma[0], expected)


def test_one_sample_has_no_uncertainty_and_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="at least 2"):
        tiny_pipeline()(np.zeros((4, 4, 3), np.uint8), output_uncertainty=True)
