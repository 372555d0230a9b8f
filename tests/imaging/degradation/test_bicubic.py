"""Degradation and enlargement are Pillow's own, to the bit, whatever the channels."""

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def test_lr_of_rgb_and_grey_is_the_one_of_the_protocol(retina):
    for hr in (retina, retina[..., 1]):
        expected = np.asarray(Image.fromarray(np.ascontiguousarray(hr)).resize((32, 32), Image.Resampling.BICUBIC))
        assert np.array_equal(bicubic_pillow(hr, 4), expected)


@pytest.mark.parametrize("method", FILTERS)
def test_enlargement_is_pillows(retina, method):
    expected = np.asarray(Image.fromarray(retina).resize((256, 256), FILTERS[method]))
    assert np.array_equal(enlarge(retina, 2, method), expected)


def test_sixteen_bit_keeps_its_depth_and_agrees_with_eight_bit(retina):
    deep = bicubic_pillow(retina.astype(np.uint16) * 257, 4)
    assert deep.dtype == np.uint16
    assert len(np.unique(deep % 257)) > 100  # not 8 bit in disguise
    assert np.abs(deep / 257 - bicubic_pillow(retina, 4)).max() < 1.01  # Pillow's 8-bit path rounds twice


def test_sixteen_bit_overshoot_is_clipped_not_wrapped():
    edge = np.zeros((8, 64), np.uint16)
    edge[:, 31:] = 65535
    profile = bicubic_pillow(edge, 2)[0].astype(int)
    assert profile[0] == 0
    assert profile[-1] == 65535
    assert not ((profile[:14] > 1000) | (profile[:14] < 0)).any()
    assert (profile[18:] > 60000).all()


def test_alpha_is_a_channel_like_the_others(retina):
    alpha = np.zeros((128, 128, 1), np.uint8)
    assert np.array_equal(bicubic_pillow(np.concatenate([retina, alpha], 2), 4)[..., :3], bicubic_pillow(retina, 4))


def test_crop_takes_right_and_bottom_and_copies_nothing(retina):
    cropped = crop_to_multiple(retina[:127, :126], 4)
    assert cropped.shape == (124, 124, 3)
    assert np.shares_memory(cropped, retina)
    assert np.array_equal(cropped, retina[:124, :124])


def test_scale_one_changes_nothing(retina):
    assert np.array_equal(bicubic_pillow(retina, 1), retina)
    assert np.array_equal(enlarge(retina, 1, "lanczos"), retina)


@pytest.mark.parametrize("scale", [0, -4, 2.0, True, "4"])
def test_a_bad_scale_is_named(retina, scale):
    for call in (bicubic_pillow, crop_to_multiple, lambda hr, s: enlarge(hr, s, "bicubic")):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            call(retina, scale)


def test_what_cannot_be_reduced_is_refused_with_a_remedy(retina):
    with pytest.raises(ValueError, match="crop_to_multiple"):
        bicubic_pillow(retina[:127], 4)
    with pytest.raises(ValueError, match="3x128; at least 4x4"):
        crop_to_multiple(retina[:, :3], 4)
    with pytest.raises(ValueError, match="float64"):
        bicubic_pillow(retina / 255, 4)
    with pytest.raises(ValueError, match="shape"):
        bicubic_pillow(retina[:0], 4)
    with pytest.raises(ValueError, match="nearest, bicubic, lanczos"):
        enlarge(retina, 4, "magic")
