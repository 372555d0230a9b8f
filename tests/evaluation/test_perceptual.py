"""ST-LPIPS is the published network: the figures are those of the wheel's own class."""

import sys
from unittest import mock

import numpy as np
import pytest

from retinashift.evaluation import perceptual
from retinashift.evaluation.perceptual import lpips_alex, st_lpips
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge


@pytest.fixture
def bicubic(retina):
    return enlarge(bicubic_pillow(retina, 4), 4, "bicubic")


def test_equal_pictures_are_at_no_distance_and_grey_counts_as_three_channels(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    assert st_lpips(retina, retina) == [0]
    grey = [np.repeat(pixels[..., :1], 3, 2) for pixels in (bicubic, retina)]
    assert st_lpips(bicubic[..., 0], retina[..., 0]) == st_lpips(*grey)


def test_the_distance_is_the_one_of_the_wheel(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    assert st_lpips(bicubic, retina)[0] == pytest.approx(0.05336524, abs=1e-4)
    nearest = enlarge(bicubic_pillow(retina, 4), 4, "nearest")
    assert st_lpips(nearest, retina)[0] == pytest.approx(0.03852637, abs=1e-4)


def test_only_the_mask_counts_and_a_shift_hardly_matters(retina, bicubic):
    pytest.importorskip("stlpips_pytorch", reason="the extra lpips is not installed")
    left = np.zeros(retina.shape[:2], bool)
    left[:, :64] = True
    whole, west, east = st_lpips(bicubic, retina, [None, left, ~left])
    assert whole == pytest.approx((west + east) / 2)
    shifted = np.roll(retina, 1, axis=1)
    assert st_lpips(shifted, retina)[0] < 0.5 * whole


def test_without_the_wheel_the_error_names_the_extra(retina):
    perceptual.st_lpips_network.cache_clear()
    with (
        mock.patch("retinashift.models.st_lpips.find_spec", return_value=None),
        pytest.raises(ValueError, match=r"pip install 'retinashift\[lpips\]'"),
    ):
        st_lpips(retina, retina)


def test_lpips_says_in_one_line_what_it_lacks(retina):
    perceptual.lpips_network.cache_clear()
    with (
        mock.patch.dict(sys.modules, {"torchmetrics.image.lpip": None}),
        pytest.raises(ValueError, match="st-lpips works offline") as caught,
    ):
        lpips_alex(retina, retina)
    assert "\n" not in str(caught.value)


def test_pictures_too_small_are_named(retina):
    with pytest.raises(ValueError, match="at least 32x32"):
        st_lpips(retina[:31], retina[:31])
    with pytest.raises(ValueError, match="must be equal"):
        st_lpips(retina, retina[:-1])
