"""The chain is deterministic by seed, keeps its range and size, and every step gets worse with its strength."""

import numpy as np
import pytest

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.degradation.pipeline import STEPS, DegradationSettings, apply_step, realistic

ALL = DegradationSettings(
    kind="realistic", optics_probability=1, blur_probability=1, noise_probability=1, mosaic_probability=1,
    jpeg_probability=1, second_order=1,
)  # fmt: skip
NONE = DegradationSettings(
    kind="realistic", optics_probability=0, blur_probability=0, noise_probability=0, mosaic_probability=0,
    jpeg_probability=0,
)  # fmt: skip


@pytest.mark.parametrize("settings", [DegradationSettings(), ALL])
def test_the_same_seed_gives_the_same_input_and_another_seed_another(retina, settings):
    first, again, other = (realistic(retina, 4, settings, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_any_step_it_is_plain_reduction(retina):
    plain = realistic(retina, 4, NONE, np.random.default_rng(0)).astype(int)
    assert np.abs(plain - bicubic_pillow(retina, 4)).max() <= 1  # Pillow's 8-bit path rounds twice


@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_shape_and_range_and_grows_with_its_strength(retina, step):
    image = retina.astype(np.float32) / 255
    least, most = getattr(ALL, step) if step != "mosaic" else (0.0, 0.0)
    made = [apply_step(image, step, strength, np.random.default_rng(3)) for strength in (least, most)]
    for picture in made:
        assert picture.shape == image.shape
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
    change = [np.abs(picture - image).mean() for picture in made]
    assert change[0] > 0
    assert step == "mosaic" or change[1] > 1.5 * change[0]


def test_settings_that_contradict_themselves_are_named():
    for wrong, reason in (
        ({"blur_probability": 1.5}, "degradation.blur_probability is 1.5; a probability"),
        ({"noise": (0.1, 0.05)}, "degradation.noise is 0.1 to 0.05; 0 < least <= most"),
        ({"haze": (0.1, 1.5)}, "degradation.haze is up to 1.5; at most 1"),
    ):
        with pytest.raises(ValueError, match=reason):
            DegradationSettings(**wrong)


def test_photographs_that_cannot_be_reduced_are_refused(retina):
    for pixels, reason in ((retina[:127], "no multiple"), (retina / 255, "uint8"), (retina[..., 0], "uint8")):
        with pytest.raises(ValueError, match=reason):
            realistic(pixels, 4, ALL, np.random.default_rng(0))
