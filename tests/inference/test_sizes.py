"""Results of any size: the reduction is the protocol's, by bands, and reduced again they give their input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinashift.evaluation.similarity import psnr_rgb
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.files import read_image
from retinashift.inference import chain
from retinashift.inference.consistency import compare_with_input
from retinashift.inference.fidelity import RowResampler, at_size, reduce_map, value_limits
from retinashift.inference.pictures import SampleMean, turn, turn_back
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint
from retinashift.inference.settings import Sampling

SIDES = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), rows=st.integers(1, 9), seed=st.integers(0, 99))
def test_bands_resample_as_pillow_does_and_give_out_each_row_once(size, target, rows, seed):
    picture = np.random.default_rng(seed).random(size, np.float32)
    resampler = RowResampler(size, target)
    found = torch.cat([resampler.push(band) for band in torch.from_numpy(picture)[None, None].split(rows, -2)], -2)
    expected = np.array(Image.fromarray(picture).resize(target[::-1], Image.Resampling.BICUBIC))
    assert found.shape == (1, 1, *target)
    assert np.abs(found[0, 0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (28, 20)),
        ({"scale": 1}, (7, 5)),
        ({"scale": 1.5}, (11, 8)),  # 10.5 and 7.5: halves are rounded up
        ({"scale": 2.2}, (15, 11)),
        ({"longest_side": 13}, (13, 9)),
        ({"longest_side": 28}, (28, 20)),
    ],
)
def test_a_result_has_the_size_that_was_asked_for(settings, size, tiny_pipeline):
    result = tiny_pipeline()(np.zeros((7, 5, 3), np.uint8), **settings)
    assert result.images[0].shape == (*size, 3)
    assert Sampling(**settings).size_of(7, 5, 4) == size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 4.5}, "scale is 4.5; from 1 to 4 times .* interpolate its result"),
        ({"scale": 0.5}, "scale is 0.5; a number from 1"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": True}, "scale is True"),
        ({"longest_side": 29}, "longest_side is 29 for a picture of 5x7; from 1 to 4"),
        ({"longest_side": 6}, "longest_side is 6 for a picture of 5x7; from 1 to 4"),
        ({"scale": 2, "longest_side": 14}, "omit one"),
        ({"turns": 4}, "turns is 4; allowed are 1, 8"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused_with_what_to_do(settings, message, tiny_pipeline):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline()(np.zeros((7, 5, 3), np.uint8), **settings)


def test_the_checkpoints_own_factor_changes_no_byte(tiny_pipeline, retina):
    pipe, lr = tiny_pipeline(), retina[:9, :11]
    assert np.array_equal(pipe(lr, scale=4.0).images[0], pipe(lr).images[0])
    assert np.array_equal(pipe(lr, longest_side=44).images[0], pipe(lr).images[0])


@pytest.mark.parametrize("scale", [1.7, 2])
def test_the_bands_do_not_show_in_a_smaller_result(scale, tiny_pipeline, monkeypatch):
    pipe, lr = tiny_pipeline(), np.random.default_rng(0).integers(0, 256, (61, 33, 3), dtype=np.uint8)
    whole = pipe(lr, scale=scale, back_projections=2).images[0].astype(int)
    monkeypatch.setattr(chain, "BAND_ROWS", 5)
    banded = pipe(lr, scale=scale, back_projections=2).images[0].astype(int)
    assert np.abs(banded - whole).max() <= 1
    assert (banded != whole).mean() < 0.001


def test_without_back_projection_a_smaller_result_is_the_reduced_one(tiny_pipeline, retina):
    pipe, lr = tiny_pipeline(), retina[:20, :24].astype(np.float32) / 255
    full = pipe(lr, back_projections=0, output_type="pt").images[0]
    half = pipe(lr, back_projections=0, output_type="pt", scale=2).images[0]
    expected = torch.nn.functional.interpolate(full[None], scale_factor=0.5, mode="bicubic", antialias=True)[0]
    assert torch.allclose(half, expected.clamp(0, 1), atol=1e-5)


def test_rows_of_a_smaller_result_come_soon_after_those_they_are_made_of():
    """What is held does not grow with the picture: every correction waits for a few rows of the input."""
    lr, pulled, given = torch.zeros(1, 3, 400, 8), 0, 0

    def bands():
        nonlocal pulled
        for _ in range(200):
            pulled += 8
            yield torch.zeros(1, 3, 8, 32)

    for rows in at_size(bands(), lr, (1600, 32), (600, 12), 2, value_limits(lr)):
        given += rows.shape[-2]
        assert pulled - given * 1600 / 600 < 128
    assert given == 600


def test_a_map_of_a_smaller_result_is_the_root_of_the_reduced_variance():
    sigma = np.random.default_rng(0).random((40, 36), np.float32)
    assert np.allclose(reduce_map(np.full((40, 36), 0.25, np.float32), (15, 13)), 0.25, atol=1e-6)
    small = reduce_map(sigma, (20, 18))
    assert small.shape == (20, 18)
    assert np.isclose((small**2).mean(), (sigma**2).mean(), rtol=0.02)


def test_a_map_has_the_size_of_its_result(tiny_pipeline, retina):
    result = tiny_pipeline(head=True)(retina[:9, :11], output_uncertainty=True, scale=1.5)
    assert result.sigma[0].shape == result.images[0].shape[:2] == (14, 17)


def test_at_the_same_size_the_checkpoint_for_poor_photographs_restores_and_x4_keeps_its_input(retina):
    noise = np.random.default_rng(0).normal(0, 6, retina[:64, :64].shape)
    noisy = np.clip(np.rint(retina[:64, :64] + noise), 0, 255).astype(np.uint8)
    restored = open_checkpoint("x4_restore")(noisy, scale=1).images[0]
    assert restored.shape == noisy.shape
    assert psnr_rgb(restored, retina[:64, :64]) > psnr_rgb(noisy, retina[:64, :64]) + 6
    assert np.array_equal(ResShiftPipeline.from_shipped()(noisy, scale=1).images[0], noisy)


def test_turns_average_the_results_of_all_turned_pictures(tiny_pipeline):
    pipe, lr = tiny_pipeline(), 0.4 + 0.2 * torch.rand(3, 9, 6, generator=torch.Generator().manual_seed(0))
    results = [turn_back(pipe(turn(lr, way), output_type="pt").images[0], way) for way in range(8)]
    found = pipe(lr, turns=8, output_type="pt").images[0]
    assert torch.allclose(found, torch.stack(results).mean(0), atol=1e-5)
    again = turn_back(pipe(turn(lr, 5), turns=8, output_type="pt").images[0], 5)
    assert torch.allclose(found, again, atol=1e-5)  # no direction is preferred


@pytest.mark.parametrize("way", range(8))
def test_samples_of_turned_pictures_land_where_they_belong(way):
    picture = torch.rand(1, 3, 8, 5, generator=torch.Generator().manual_seed(way))
    mean = SampleMean((3, 8, 5))
    for each in (0, way):
        mean.add(iter(turn(picture, each).split(3, dim=-2)), each)
    assert torch.allclose(mean.mean, picture)


def photographs(shared):
    return sorted([*(shared / "data/drive/images").glob("*.tif"), *(shared / "data/stare").glob("*.ppm")])


def test_a_smaller_result_reduced_again_gives_its_input(shared):
    """A piece of each of the 40 test photographs, whose full result is made once for three sizes."""
    pieces = [bicubic_pillow(read_image(path).pixels[250:346, 250:346], 4) for path in photographs(shared)]
    assert len(pieces) == 40
    pipe = ResShiftPipeline.from_shipped()
    times = pipe.config.back_projections
    for lr, full in zip(pieces, pipe(pieces, output_type="pt", back_projections=0).images, strict=True):
        given = torch.from_numpy(lr).permute(2, 0, 1)[None] / 127.5 - 1
        for side in (36, 48, 72):
            rows = at_size(iter([full[None] * 2 - 1]), given, (96, 96), (side, side), times, value_limits(given))
            sr = ((torch.cat(list(rows), -2)[0] / 2 + 0.5) * 255).round().byte().permute(1, 2, 0).numpy()
            reduced = np.array(Image.fromarray(sr).resize((24, 24), Image.Resampling.BICUBIC)).astype(float)
            error = ((reduced - lr) ** 2).mean()
            found = 10 * np.log10(255**2 / error) if error else np.inf
            assert found > 58
            assert compare_with_input(sr, lr / 255)[0] == pytest.approx(found)
