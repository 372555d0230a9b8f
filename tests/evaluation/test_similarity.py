"""Scores of known distortions, and agreement with scikit-image where it defines the same."""

import math

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from retinashift.evaluation.similarity import consistency, luma_studio, psnr_rgb, psnr_y, ssim_y
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge

METRICS = (psnr_rgb, psnr_y, ssim_y)


@pytest.fixture
def noisy(retina):
    noise = np.random.default_rng(0).normal(0, 6, retina.shape)
    return (retina + noise).round().clip(0, 255).astype(np.uint8)


def test_one_grey_level_is_48_13_db(retina):
    brighter = np.minimum(retina, 254) + np.uint8(1)
    assert psnr_rgb(brighter, np.minimum(retina, 254)) == pytest.approx(20 * math.log10(255))
    assert psnr_y(brighter, np.minimum(retina, 254)) == pytest.approx(20 * math.log10(255 / (219 / 255)))


def test_equal_pictures_score_infinity_and_one(retina):
    assert psnr_rgb(retina, retina) == psnr_y(retina, retina) == math.inf
    assert ssim_y(retina, retina) == pytest.approx(1)


def test_psnr_and_luma_agree_with_scikit_image(retina, noisy):
    assert psnr_rgb(noisy, retina) == pytest.approx(peak_signal_noise_ratio(retina, noisy, data_range=255))
    assert np.allclose(luma_studio(retina), rgb2ycbcr(retina)[..., 0])
    expected = peak_signal_noise_ratio(rgb2ycbcr(retina)[..., 0], rgb2ycbcr(noisy)[..., 0], data_range=255)
    assert psnr_y(noisy, retina) == pytest.approx(expected)


def test_ssim_away_from_the_border_is_the_one_of_the_paper(retina, noisy):
    inner = np.zeros(retina.shape[:2], bool)
    inner[5:-5, 5:-5] = True  # where scikit-image's mean, as the paper's, has whole windows
    expected = structural_similarity(
        rgb2ycbcr(retina)[..., 0], rgb2ycbcr(noisy)[..., 0],
        data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim_y(noisy, retina, inner) == pytest.approx(expected)


def test_ssim_of_two_flat_pictures_is_its_luminance_term():
    a, b = np.full((16, 16), 100, np.uint8), np.full((16, 16), 200, np.uint8)
    x, y = luma_studio(a)[0, 0], luma_studio(b)[0, 0]
    assert ssim_y(a, b) == pytest.approx((2 * x * y + 2.55**2) / (x**2 + y**2 + 2.55**2))


def test_white_is_235_black_is_16_and_grey_counts_as_three_equal_channels(retina):
    ends = np.array([[0, 255]], np.uint8)
    assert luma_studio(ends) == pytest.approx(np.array([[16, 235]]))
    grey = retina[..., 1]
    assert luma_studio(grey) == pytest.approx(luma_studio(np.repeat(grey[..., None], 3, 2)))


def test_only_pixels_in_the_mask_count(retina):
    changed = retina.copy()
    changed[:64] = 255 - changed[:64]
    below = np.zeros(retina.shape[:2], bool)
    below[64 + 6 :] = True  # beyond the reach of SSIM's window
    assert psnr_rgb(changed, retina, below) == psnr_y(changed, retina, below) == math.inf
    assert ssim_y(changed, retina, below) == pytest.approx(1)
    whole = np.ones(retina.shape[:2], bool)
    for metric in METRICS:
        assert metric(changed, retina, whole) == metric(changed, retina)


def test_consistency_sees_what_reduction_sees(retina):
    lr = bicubic_pillow(retina, 4)
    assert consistency(retina, lr, 4) == 100
    shifted = np.minimum(retina, 250) + np.uint8(1)
    assert consistency(shifted, bicubic_pillow(np.minimum(retina, 250), 4), 4) == pytest.approx(48.13, abs=0.01)
    blurred = consistency(enlarge(lr, 4, "bicubic"), lr, 4)
    assert 30 < blurred < 60


def test_pictures_that_cannot_be_compared_are_refused(retina):
    for metric in METRICS:
        with pytest.raises(ValueError, match="must be equal"):
            metric(retina, retina[:-1])
        with pytest.raises(ValueError, match="uint8 is needed"):
            metric(retina / 255, retina / 255)
        for mask in (np.zeros((128, 128), bool), np.ones((127, 128), bool), np.ones((128, 128), np.uint8)):
            with pytest.raises(ValueError, match="mask"):
                metric(retina, retina, mask)
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim_y(retina[:10], retina[:10])
    with pytest.raises(ValueError, match="x3 of an input"):
        consistency(retina, bicubic_pillow(retina, 4), 3)
    with pytest.raises(ValueError, match="uint8 is needed"):
        consistency(retina.astype(np.uint16), bicubic_pillow(retina, 4), 4)
