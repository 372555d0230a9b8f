"""A photograph is upright, and has one of the shapes and types that everything downstream expects."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from retinashift.imaging.photograph import ImageError, Photograph, check_size, upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(retina, orientation):
    stored = retina[:20, :30]
    picture = Image.fromarray(stored)
    picture.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(upright(stored, orientation), expected)
    assert np.array_equal(upright(stored[..., 0], orientation), expected[..., 0])


@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (2, True), (3, False), (4, True)])
def test_alpha_is_the_last_of_two_or_four_channels(channels, alpha):
    photograph = Photograph(np.zeros((4, 5, channels)[: 2 if channels == 1 else 3], np.uint8))
    assert (photograph.channels, photograph.has_alpha) == (channels, alpha)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4)), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_other_pixels_are_refused(pixels):
    with pytest.raises(ImageError, match="needed"):
        Photograph(pixels)


def test_the_limit_itself_is_allowed():
    check_size(10, 10, 100)
    with pytest.raises(ImageError, match="101x1 pixels are above the limit of 100"):
        check_size(101, 1, 100)
    with pytest.raises(ImageError, match="empty"):
        check_size(0, 7, 100)
