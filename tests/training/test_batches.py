"""Samples are a pure function of (seed, position), and LR is what the protocol says."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.data.photographs import DataError, Source, list_source
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.degradation.pipeline import Camera
from retinashift.training.batches import PhotographSet, bicubic_reduce, make_batch
from retinashift.training.settings import CropSettings


@pytest.fixture
def pool(photographs):
    return PhotographSet(list_source(Source(str(photographs))), cache_gib=1)


def test_torch_reduction_equals_pillow():
    hr = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    ours = bicubic_reduce(torch.from_numpy(hr).permute(2, 0, 1)[None] / 255, 4)[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(ours - bicubic_pillow(hr, 4))
    assert difference.max() <= 1.001
    assert (difference > 0.5).mean() < 0.001  # Pillow's coefficients are whole numbers: a tie may fall the other way


def test_a_sample_does_not_depend_on_the_batch_it_comes_in(pool):
    settings = CropSettings(size=32, rescale_min=0.7, rescale_max=1.3, blur_sigma_max=0.8)
    whole = make_batch(pool, settings, 4, 5, range(10, 16))
    part = make_batch(pool, settings, 4, 5, range(12, 14))
    assert torch.equal(whole.hr[2:4], part.hr)
    assert torch.equal(whole.lr[2:4], part.lr)
    assert not torch.equal(make_batch(pool, settings, 4, 6, range(12, 14)).hr, part.hr)


def test_samples_are_eight_bit_values_and_lr_is_hr_reduced(pool):
    batch = make_batch(pool, CropSettings(size=32, rescale_min=0.7, rescale_max=1.3, flip=False), 4, 0, range(8))
    assert batch.hr.shape == (8, 3, 32, 32)
    assert batch.lr.shape == (8, 3, 8, 8)
    for image in (batch.hr, batch.lr):
        assert torch.allclose(image * 255, (image * 255).round(), atol=1e-4)
    assert torch.equal(bicubic_reduce(batch.hr, 4), batch.lr)


def test_turning_keeps_hr_and_lr_together(pool):
    batch = make_batch(pool, CropSettings(size=32, flip=True), 4, 0, range(16))
    still = make_batch(pool, CropSettings(size=32, flip=False), 4, 0, range(16))
    assert torch.equal(bicubic_reduce(batch.hr, 4), batch.lr)
    assert not torch.equal(batch.hr, still.hr)


def test_given_pairs_are_cut_at_the_same_place(tmp_path):
    rng = np.random.default_rng(0)
    lr = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for folder, pixels in (("lr", lr), ("hr", lr.repeat(4, 0).repeat(4, 1))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "eye.png")
    pool = PhotographSet(list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr"))), cache_gib=1)
    batch = make_batch(pool, CropSettings(size=32, flip=True), 4, 0, range(12))
    assert torch.equal(batch.hr[..., ::4, ::4], batch.lr)


def test_a_photograph_smaller_than_the_crop_is_named(pool, tmp_path):
    with pytest.raises(DataError, match=r"eye\d.png is 96x96, smaller than crop.size 128"):
        make_batch(pool, CropSettings(size=128), 4, 0, range(1))
    Image.new("RGB", (5, 6)).save(tmp_path / "dot.png")
    with pytest.raises(DataError, match=r"dot.png is 5x6, smaller than crop.size 128; leave it out"):
        make_batch(PhotographSet(list_source(Source(str(tmp_path))), cache_gib=1), CropSettings(size=128), 4, 0, [0])


def test_realistic_inputs_follow_seed_and_position_and_leave_hr_alone(pool):
    settings, poor = CropSettings(size=64), Camera(second_order=0.5)
    plain = make_batch(pool, settings, 4, 5, range(4))
    whole, part = make_batch(pool, settings, 4, 5, range(4), poor), make_batch(pool, settings, 4, 5, range(2, 4), poor)
    assert torch.equal(whole.hr, plain.hr)
    assert torch.equal(whole.lr[2:], part.lr)
    assert whole.lr.shape == plain.lr.shape
    assert not torch.equal(whole.lr, plain.lr)
    assert torch.allclose(whole.lr * 255, (whole.lr * 255).round(), atol=1e-4)
    with ThreadPoolExecutor(2) as pool_of_threads:
        elsewhere = make_batch(pool, settings, 4, 5, range(4), poor, pool_of_threads.map)
    assert torch.equal(whole.lr, elsewhere.lr)
