"""The last values of a result that reduce to another level than their input: found, and settled without the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.consistency import MARGIN, MOST, WINDOW, compare_with_input, settle

NEAR = 4 * (WINDOW + 2 + MARGIN)


def levels_off(sr, lr):
    back = np.asarray(Image.fromarray(sr).resize(lr.shape[1::-1], Image.Resampling.BICUBIC))
    return np.abs(back.astype(int) - lr)


def as_tensor(lr):
    return torch.from_numpy(lr.transpose(2, 0, 1)[None].astype(np.float32)) / 127.5 - 1


def test_values_more_than_one_level_off_are_found_where_they_are(retina):
    lr = bicubic_pillow(retina, 4)
    shifted = lr.copy()
    shifted[3, 5, 1] += 2
    shifted[9, 2] += 1
    decibel, off = compare_with_input(retina, shifted / np.float32(255))
    assert off == [(3, 5)]
    assert decibel == pytest.approx(10 * np.log10(255**2 * lr.size / (4 + 3)))


def test_a_dark_dot_in_white_comes_back_within_one_level_and_what_is_far_stays(retina):
    white = np.full((256, 256, 3), 255, np.uint8)
    white[128:] = np.tile(retina, (1, 2, 1))
    white[60:66, 60:64] = (214, 190, 100)
    lr = bicubic_pillow(white, 4)
    sr = np.asarray(Image.fromarray(lr).resize((256, 256), Image.Resampling.BICUBIC)).copy()
    sr[128:] = white[128:]
    _, off = compare_with_input(sr, lr / np.float32(255))
    off = [place for place in off if place[0] < 28]
    assert off
    before = sr.copy()
    settle(sr, as_tensor(lr), 4, off, bounded=True)
    assert levels_off(sr, lr)[: 28 - WINDOW].max() <= 1
    rows, columns = np.nonzero((sr != before).any(2))
    assert rows.max() < 4 * max(row for row, _ in off) + NEAR
    assert columns.max() < 4 * max(column for _, column in off) + NEAR


def test_more_values_than_a_few_are_left_alone(retina):
    lr, sr = bicubic_pillow(retina, 4), retina.copy()
    settle(sr, as_tensor(lr), 4, [(5, 5)] * (MOST + 1), bounded=True)
    assert np.array_equal(sr, retina)
