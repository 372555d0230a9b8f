"""Light, haze and spots change what they say, leave the dark surround dark, and are nothing at strength 0."""

import numpy as np
import pytest
from scipy import ndimage

from retinashift.imaging.degradation.pipeline import haze, spots, uneven_light


@pytest.fixture
def eye(retina):
    image = retina.astype(np.float32) / 255
    y, x = np.mgrid[:128, :128] - 63.5
    return image * (np.hypot(x, y) < 60)[..., None].astype(np.float32)


def chance(seed=0):
    return np.random.default_rng(seed)


def test_strength_0_changes_nothing_and_the_surround_stays_dark(eye):
    dark = eye.max(2) == 0
    inner = ndimage.binary_erosion(dark, iterations=10)
    for strength, check in ((0.0, True), (0.3, False)):
        for changed in (
            uneven_light(eye, strength, chance()), haze(eye, strength, chance()), spots(eye, 5, strength, chance()),
        ):  # fmt: skip
            assert np.allclose(changed, eye, atol=1e-6) == check
            assert np.abs(changed[inner]).max() < 1e-3


def test_uneven_light_is_smooth_and_as_strong_as_it_says(eye):
    field = eye.min(2) > 0.02
    for seed in range(8):
        ratio = (uneven_light(eye, 0.4, chance(seed))[..., 1] / np.maximum(eye[..., 1], 1e-6))[field]
        assert np.abs(ratio - 1).max() == pytest.approx(0.4, abs=0.1)


def test_haze_takes_contrast_and_adds_light(eye):
    field = ndimage.binary_erosion(eye.max(2) > 0.05, iterations=8)
    hazy = haze(eye, 0.4, chance())
    detail = [np.std((image[..., 1] - ndimage.gaussian_filter(image[..., 1], 4))[field]) for image in (eye, hazy)]
    assert 0.55 < detail[1] / detail[0] < 0.8
    assert hazy[field].mean() > eye[field].mean()


def test_spots_are_few_and_round_and_as_bright_as_they_say():
    flat = np.full((200, 200, 3), 0.5, np.float32)
    change = np.abs(spots(flat, 3, 0.2, chance(1)) - flat)[..., 0]
    assert change.max() == pytest.approx(0.2, abs=0.08)
    assert 0 < (change > 0.05).mean() < 0.03
    assert 1 <= ndimage.label(change > 0.05)[1] <= 3


def test_the_same_seed_gives_the_same_picture(eye):
    for change in (uneven_light, haze):
        assert np.array_equal(change(eye, 0.3, chance(4)), change(eye, 0.3, chance(4)))
        assert not np.array_equal(change(eye, 0.3, chance(4)), change(eye, 0.3, chance(5)))
