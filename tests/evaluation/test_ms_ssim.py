"""MS-SSIM is torchmetrics' on whole frames, 1 for equal pictures, and counts only the mask."""

import numpy as np
import pytest
import skimage.data
import torch

from retinashift.evaluation.metrics import luma_studio
from retinashift.evaluation.ms_ssim import ms_ssim_y


@pytest.fixture(scope="module")
def pair():
    hr = skimage.data.retina()[500:740, 400:701].copy()
    noise = np.random.default_rng(0).normal(0, 6, hr.shape)
    return (hr + noise).round().clip(0, 255).astype(np.uint8), hr


def test_equal_pictures_score_one_and_more_noise_scores_less(pair):
    noisy, hr = pair
    assert ms_ssim_y(hr, hr) == pytest.approx(1)
    worse = (hr + 3.0 * (noisy.astype(float) - hr)).clip(0, 255).astype(np.uint8)
    assert ms_ssim_y(worse, hr) < ms_ssim_y(noisy, hr) < 1


def test_whole_frames_agree_with_torchmetrics(pair):
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = (torch.from_numpy(luma_studio(pixels))[None, None] for pixels in pair)
    expected = functional.multiscale_structural_similarity_index_measure(a, b, data_range=255.0, sigma=1.5)
    assert ms_ssim_y(*pair) == pytest.approx(float(expected), abs=1e-4)


def test_only_pixels_in_the_mask_count(pair):
    _, hr = pair
    changed = hr.copy()
    changed[:, :60] = 255 - changed[:, :60]
    inside = np.zeros(hr.shape[:2], bool)
    inside[:, 160:240] = True  # beyond the reach of the coarsest window
    whole = ms_ssim_y(changed, hr)
    assert ms_ssim_y(changed, hr, inside) == pytest.approx(1, abs=1e-3)
    assert whole < 0.95
    assert ms_ssim_y(changed, hr, np.ones(hr.shape[:2], bool)) == whole


def test_what_is_too_small_is_named(pair):
    noisy, hr = pair
    with pytest.raises(ValueError, match="at least 176x176"):
        ms_ssim_y(noisy[:175], hr[:175])
    speck = np.zeros(hr.shape[:2], bool)
    speck[100:104, 100:104] = True
    with pytest.raises(ValueError, match="too small for scale"):
        ms_ssim_y(noisy, hr, speck)
