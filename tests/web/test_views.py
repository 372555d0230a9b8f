"""What is drawn is lossless, says the same as the metrics, and never resizes a reference."""

import numpy as np
import pytest

from retinashift.evaluation.similarity import psnr_rgb, ssim_y
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge
from retinashift.imaging.files import read_image, write_image
from retinashift.imaging.fundus import field_of_view
from retinashift.web.views import LEVELS_PER_GREY, as_shown, write_views


@pytest.mark.parametrize("channels", [(), (2,), (3,), (4,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_photograph_is_shown_as_8_bit_rgb_without_alpha(channels, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7, *channels), dtype, endpoint=True)
    shown = as_shown(pixels)
    assert (shown.shape, shown.dtype) == ((5, 7, 3), np.uint8)
    first = pixels if pixels.ndim == 2 else pixels[..., 0]
    expected = first if dtype == np.uint8 else np.rint(first / 257)
    assert np.array_equal(shown[..., 0], expected)
    if channels in ((), (2,)):
        assert np.array_equal(shown[..., 0], shown[..., 2])


def test_the_ends_of_16_bit_are_the_ends_of_8_bit():
    assert as_shown(np.array([[0, 257, 65535]], np.uint16))[0, :, 0].tolist() == [0, 1, 255]


def test_layers_are_files_without_loss_and_figures_are_those_of_the_metrics(tmp_path, retina):
    lr, hr = bicubic_pillow(retina, 4), retina
    sr = np.clip(enlarge(lr, 4, "bicubic").astype(int) + 1, 0, 255).astype(np.uint8)
    sigma = np.linspace(0, 40 / 255, 128 * 128, dtype=np.float32).reshape(128, 128)
    write_image(tmp_path / "hr.png", hr)
    made = write_views(tmp_path, lr, sr, 4, sigma, tmp_path / "hr.png")
    assert made["layers"] == ["input", "bicubic", "result", "uncertainty", "reference", "error"]
    assert made["size"] == [128, 128]
    drawn = {layer: read_image(tmp_path / f"{layer}.png").pixels for layer in made["layers"]}
    assert np.array_equal(drawn["input"], lr)
    assert np.array_equal(drawn["result"], sr)
    assert np.array_equal(drawn["reference"], hr)
    error = np.abs(sr.astype(float) - hr).mean(-1)
    assert np.abs(drawn["error"] / LEVELS_PER_GREY - error.clip(0, 31.9)).max() <= 0.5 / LEVELS_PER_GREY + 1e-6
    levels = (255 * sigma).clip(0, 31.875)  # 40 grey levels are above what the map holds
    assert np.abs(drawn["uncertainty"] / LEVELS_PER_GREY - levels).max() <= 0.5 / LEVELS_PER_GREY + 1e-5
    eye = field_of_view(hr)
    assert made["quality"]["result"] == {
        "psnr": round(psnr_rgb(sr, hr, eye), 2),
        "ssim": round(ssim_y(sr, hr, eye), 4),
    }


def test_a_reference_of_another_size_is_told_and_not_resized(tmp_path, retina):
    write_image(tmp_path / "hr.png", retina[:60])
    made = write_views(tmp_path, bicubic_pillow(retina, 4), retina, 4, None, tmp_path / "hr.png")
    assert made["quality"] == {
        "error": "the reference is 128x60; the result is 128x128, and a reference is not resized"
    }
    assert made["layers"] == ["input", "bicubic", "result"]


def test_a_result_equal_to_its_reference_has_no_infinite_figure(tmp_path, retina):
    write_image(tmp_path / "hr.png", retina)
    made = write_views(tmp_path, bicubic_pillow(retina, 4), retina, 4, None, tmp_path / "hr.png")
    assert list(made["quality"]) == ["bicubic"]
