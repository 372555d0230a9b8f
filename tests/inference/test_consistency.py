"""The last values of a result that reduce to another level than their input: found, and settled without the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.consistency import ENOUGH, MARGIN, WINDOW, compare_with_input, settle
from retinashift.inference.fidelity import CELL, back_project_rows, value_limits
from retinashift.models.codec import upsample_bicubic

NEAR = 4 * (WINDOW + 2 + MARGIN)


def levels_off(sr, lr):
    back = np.asarray(Image.fromarray(sr).resize(lr.shape[1::-1], Image.Resampling.BICUBIC))
    return np.abs(back.astype(int) - lr)


def as_tensor(lr):
    return torch.from_numpy(lr.transpose(2, 0, 1)[None].astype(np.float32)) / 127.5 - 1


def settled(sr, lr, half=CELL * 2 / 255):
    compare = lambda: compare_with_input(sr, lr / np.float32(255))  # noqa: E731
    cell = lambda top, bottom: torch.full((1, 1, bottom - top, lr.shape[1]), half)  # noqa: E731
    return settle(sr, as_tensor(lr), 4, True, cell, compare)


def test_differences_are_found_where_they_are(retina):
    lr = bicubic_pillow(retina, 4)
    shifted = lr.copy()
    shifted[3, 5, 1] += 2
    shifted[9, 2] += 1
    decibel, levels = compare_with_input(retina, shifted / np.float32(255))
    assert {tuple(place): levels[tuple(place)] for place in np.argwhere(levels > 0.5)} == pytest.approx(
        {(3, 5): 2, (9, 2): 1}, abs=1e-3
    )
    assert decibel == pytest.approx(10 * np.log10(255**2 * lr.size / (4 + 3)))


def test_a_dark_dot_in_white_comes_back_within_one_level_and_what_is_far_stays():
    white = np.full((512, 512, 3), 255, np.uint8)
    white[60:66, 60:64] = (214, 190, 100)
    lr = bicubic_pillow(white, 4)
    sr = np.asarray(Image.fromarray(lr).resize((512, 512), Image.Resampling.BICUBIC)).copy()
    assert levels_off(sr, lr).max() > 1
    assert (levels_off(sr, lr).max(2) > 0).mean() < ENOUGH
    before = sr.copy()
    decibel = settled(sr, lr)
    assert levels_off(sr, lr).max() <= 1
    assert decibel == compare_with_input(sr, lr / np.float32(255))[0]
    rows, columns = np.nonzero((sr != before).any(2))
    assert max(rows.max(), columns.max()) < 66 + 2 * NEAR


def test_where_many_values_differ_the_whole_result_is_projected_further(retina):
    dark = (retina // 16).astype(np.uint8)  # so dark that black takes corrections away
    lr = bicubic_pillow(dark, 4)
    noise = np.random.default_rng(0).integers(-3, 4, dark.shape)
    sr = (np.asarray(Image.fromarray(lr).resize((128, 128), Image.Resampling.BICUBIC)) + noise).clip(0, 255)
    sr = sr.astype(np.uint8)
    first = (levels_off(sr, lr) == 0).mean()
    settled(sr, lr)
    assert first < 0.9
    assert (levels_off(sr, lr) == 0).mean() > 0.995


def test_what_the_self_check_returned_to_bicubic_is_left_alone(retina):
    lr, sr = bicubic_pillow(retina, 4) ^ 64, retina.copy()
    settled(sr, lr, half=0.0)
    assert np.array_equal(sr, retina)


@pytest.mark.parametrize("seed", [0, 31])
def test_values_along_a_noisy_edge_to_black_come_back_though_settling_one_disturbs_another(seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :40] - 20
    slope, level, black = rng.uniform(-0.4, 0.4), rng.integers(40, 160, 3), rng.integers(0, 6, (40, 40, 3))
    bright = (rows < slope * columns)[..., None]
    lr = np.full((400, 400, 3), 60, np.uint8)
    lr[20:60, 20:60] = np.where(bright, level + rng.integers(-8, 9, (40, 40, 3)), black)
    given = as_tensor(lr)
    cell = lambda top, bottom: torch.full((1, 1, bottom - top, 400), CELL * 2 / 255)  # noqa: E731
    bands = back_project_rows(iter([upsample_bicubic(given, 4)]), given, 4, 6, value_limits(given), cell)
    sr = (next(bands)[0] * 127.5 + 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()
    assert levels_off(sr, lr).max() > 1
    assert (levels_off(sr, lr).max(2) > 0).mean() < ENOUGH
    settled(sr, lr)
    assert levels_off(sr, lr).max() <= 1
