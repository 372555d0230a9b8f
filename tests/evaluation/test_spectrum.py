"""The spectrum sees what a filter takes away, in the frequencies where it takes it."""

import numpy as np
import pytest
from scipy import ndimage

from retinashift.evaluation.similarity import BANDS, radial_power, sharpness

SIDE = 256
WHOLE = np.ones((SIDE, SIDE), bool)


@pytest.fixture
def noise():
    return (128 + 20 * np.random.default_rng(0).standard_normal((SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def test_white_noise_has_the_same_power_everywhere(noise):
    power = radial_power(noise, WHOLE)
    assert power.shape == (BANDS,)
    assert power[2:].std() / power[2:].mean() < 0.2


def test_a_gaussian_takes_the_power_its_transform_says(noise):
    blurred = ndimage.gaussian_filter(noise.astype(float), 1.5)
    spread = 128 + (blurred - blurred.mean()) * 2
    ratio = radial_power(spread.round().astype(np.uint8), WHOLE) / radial_power(noise, WHOLE) / 4
    frequency = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    expected = np.exp(-((2 * np.pi * frequency * 1.5) ** 2))
    assert np.allclose(ratio[2:10], expected[2:10], rtol=0.12)


def test_equal_pictures_are_as_sharp_and_blurred_ones_less(retina):
    field = np.ones(retina.shape[:2], bool)
    power = radial_power(retina, field)
    assert sharpness(power, power, 4) == 1
    blurred = ndimage.gaussian_filter(retina, (2, 2, 0))
    assert sharpness(radial_power(blurred, field), power, 4) < 0.2


def test_sharpness_is_of_the_octave_above_the_inputs_limit():
    frequency = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    hr = np.ones(BANDS)
    sr = np.where((frequency > 0.125) & (frequency < 0.25), 0.5, 7.0)
    assert sharpness(sr, hr, 4) == pytest.approx(0.5)
    assert np.isnan(sharpness(sr, np.zeros(BANDS), 4))


def test_a_ring_counts_by_its_area():
    """Eight rings from 8.5 to 15.5 of 64; only the outermost holds power in the result."""
    sr = np.zeros(BANDS)
    sr[15] = 1
    assert sharpness(sr, np.ones(BANDS), 4) == pytest.approx(15.5 / np.arange(8.5, 16).sum())
    assert sharpness(sr[::-1], np.ones(BANDS), 4) == 0


def test_a_field_too_small_has_no_spectrum():
    assert radial_power(np.zeros((90, 90), np.uint8), np.ones((90, 90), bool)) is None
    assert radial_power(np.zeros((91, 91), np.uint8), np.ones((91, 91), bool)) is not None
