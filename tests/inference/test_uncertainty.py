"""The uncertainty map: from the call of the result, in any bands, and right where the truth is known."""

import numpy as np
import pytest
import skimage
import torch
from scipy import ndimage

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference import chain
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint
from retinashift.inference.record import checkpoint_hash, uncertainty_hash
from retinashift.models.uncertainty_head import (
    LEAST,
    LEVELS,
    UNCALIBRATED,
    Calibration,
    UncertaintyHead,
    Z,
    fit_quantiles,
)


@pytest.fixture(scope="module")
def x4():
    return open_checkpoint("x4")


def lr_image(height=40, width=24):
    return np.random.default_rng(0).uniform(0.3, 0.7, (height, width, 3)).astype(np.float32)


def test_the_map_comes_with_the_default_result_which_stays_as_it_is(tiny_pipeline):
    plain, found = tiny_pipeline()(lr_image()), tiny_pipeline(head=True)(lr_image(), output_uncertainty=True)
    assert np.array_equal(found.images[0], plain.images[0])
    assert plain.sigma is None
    assert found.sigma[0].shape == (160, 96)
    assert found.sigma[0].min() >= np.float32(np.exp(LEAST))


def test_the_map_does_not_depend_on_the_bands_nor_on_memory_that_runs_out(tiny_pipeline, monkeypatch):
    pipeline, real = tiny_pipeline(head=True), chain.LightStream.push
    whole = pipeline(lr_image(), output_uncertainty=True).sigma[0]

    def push(self, deviation, lq):
        if self.pushed > 20 and deviation.shape[-2] > 5:
            raise MemoryError
        return real(self, deviation, lq)

    monkeypatch.setattr(chain, "BAND_ROWS", 9)
    monkeypatch.setattr(chain.LightStream, "push", push)
    assert np.allclose(pipeline(lr_image(), output_uncertainty=True).sigma[0], whole, rtol=1e-4)


def test_a_constant_picture_has_the_least_map(x4):
    flat = np.full((24, 20, 3), (180, 90, 40), np.uint8)
    sigma = x4(flat, output_uncertainty=True, precision="fp32").sigma[0]
    assert sigma == pytest.approx(np.exp(LEAST) * x4.calibration.factor, rel=1e-4)


@pytest.mark.parametrize("name", ["x4", "x4_small", "x4_restore"])
def test_the_more_an_input_is_blurred_the_larger_its_map(name, retina):
    photograph, pipeline = np.ascontiguousarray(skimage.data.retina()[:1408:2, :1408:2]), open_checkpoint(name)

    def mean(pixels, blur):
        lr = bicubic_pillow(ndimage.gaussian_filter(pixels, (blur, blur, 0)), 4)
        return pipeline(lr, output_uncertainty=True, precision="fp32", num_inference_steps=1).sigma[0].mean()

    means = [mean(photograph, blur) for blur in (0.0, 2.0, 3.0, 4.0)]
    assert means == sorted(means)
    assert means[-1] > 2 * means[0]
    assert all(mean(retina, blur) > mean(retina, 0.0) for blur in (2.0, 3.0, 4.0))


def test_a_noisier_input_has_a_larger_map(retina):
    lr, noise = bicubic_pillow(retina, 4), np.random.default_rng(0).normal(size=(32, 32, 3))
    noisy = [(lr + levels * noise).round().clip(0, 255).astype(np.uint8) for levels in (0, 2, 8, 16)]
    made = ResShiftPipeline.from_shipped("x4_restore")(noisy, output_uncertainty=True, precision="fp32")
    means = [sigma.mean() for sigma in made.sigma]
    assert means == sorted(means)
    assert means[-1] > 2 * means[0]


@pytest.mark.parametrize("tails", ["normal", "laplace"])
def test_a_calibrated_interval_of_90_percent_covers_90_percent_whatever_the_shape_of_the_errors(tails):
    chance = np.random.default_rng(0)
    ratios = np.abs(getattr(chance, tails)(0, 1, (2, 100_000)))
    found = Calibration(fit_quantiles(ratios[0], np.ones(100_000)), {})
    for level, width in found.half_widths().items():
        assert (ratios[1] <= width * found.factor).mean() == pytest.approx(level, abs=0.01)
    assert found.half_widths()[0.9] == pytest.approx(Z)


def test_weights_count(tiny_pipeline):
    ratios, weights = np.r_[np.ones(1000), np.full(1000, 2.0)], np.r_[np.ones(1000), np.zeros(1000)]
    assert set(fit_quantiles(ratios, weights).values()) == {1.0}
    with pytest.raises(ValueError, match="at least 1,000"):
        fit_quantiles(ratios[:10], weights[:10])


def test_head_and_calibration_travel_with_the_checkpoint_and_change_neither_its_hash_nor_its_results(
    tiny_pipeline, tmp_path
):
    pipeline = tiny_pipeline(head=True)
    pipeline.register_to_config(calibration=Calibration(dict.fromkeys(LEVELS, 2 * Z), {"source": "val"}).to_config())
    pipeline.save_pretrained(tmp_path)
    again = ResShiftPipeline.from_pretrained(tmp_path)
    assert again.calibration == Calibration(dict.fromkeys(LEVELS, 2 * Z), {"source": "val"})
    assert np.array_equal(
        again(lr_image(), output_uncertainty=True).sigma[0],
        2 * tiny_pipeline(head=True)(lr_image(), output_uncertainty=True).sigma[0],
    )
    assert uncertainty_hash(again) == uncertainty_hash(pipeline) != uncertainty_hash(tiny_pipeline(head=True))
    assert checkpoint_hash(again) == checkpoint_hash(tiny_pipeline())


def test_new_weights_have_no_map(tiny_pipeline):
    pipeline = tiny_pipeline(head=True)
    pipeline.drop_uncertainty()
    for without in (pipeline, tiny_pipeline()):
        with pytest.raises(ValueError, match="no uncertainty head"):
            without(lr_image(), output_uncertainty=True)


def test_a_head_of_another_width_or_with_other_tensors_is_refused(tiny_pipeline, tmp_path):
    pipeline = tiny_pipeline()
    with pytest.raises(ValueError, match="for a denoiser of"):
        ResShiftPipeline(pipeline.denoiser, pipeline.scheduler, uncertainty_head=UncertaintyHead(width=16))
    broken = tiny_pipeline(head=True)
    with torch.no_grad():
        broken.uncertainty_head.write.bias[0] = torch.nan
    broken.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="uncertainty_head holds weights that are not finite"):
        ResShiftPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("plain", [{}, {"quantiles": {"0.5": 1}, "protocol": {}}, {"quantiles": 3}, {"steps": 4}])
def test_a_calibration_that_is_none_is_refused_in_one_line(plain):
    with pytest.raises(ValueError, match="calibrate it again"):
        Calibration.from_config(plain)
    falling = UNCALIBRATED.to_config()["quantiles"] | {"0.99": 0.1}
    with pytest.raises(ValueError, match="calibrate it again"):
        Calibration.from_config({"quantiles": falling, "protocol": {}})
