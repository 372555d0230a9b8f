"""Uncertainty on disk: numbers come back, colours follow them, and the picture beneath stays."""

import numpy as np
import pytest

from builders.photographs import decode_map
from retinashift.imaging.figures import BRIGHTEST, encode_map, overlay


def test_numbers_and_account_come_back_to_a_65535th():
    sigma = np.random.default_rng(0).random((300, 7), np.float32)
    back, account = decode_map(encode_map(sigma, {"meaning": "what"}))
    assert np.abs(back - sigma).max() <= 0.5 / 65535 + 1e-7
    assert account["meaning"] == "what"
    assert "257 is one level" in account["unit"]


@pytest.mark.parametrize("shape", [(40, 80), (40, 80, 2), (40, 80, 3), (40, 80, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_without_uncertainty_the_picture_is_seen_in_grey_above_a_legend(shape, dtype):
    pixels = np.full(shape, 100 * (257 if dtype == np.uint16 else 1), dtype)
    seen = overlay(pixels, np.zeros(shape[:2], np.float32), "what")
    assert seen.shape[1:] == (80, 3)
    assert seen.shape[0] > 40
    assert (seen[:40] == 100).all()


def test_colours_end_at_the_brightest_level_and_rise_to_it():
    sigma = np.zeros((1, 40), np.float32) + np.array([0, 1, 4, BRIGHTEST, 2 * BRIGHTEST] * 8, np.float32) / 255
    seen = overlay(np.zeros((1, 40, 3), np.uint8), sigma, "what")[0, :5].astype(int)
    assert seen[3].tolist() == seen[4].tolist()
    light = seen.sum(1)
    assert light[0] < light[1] < light[2] < light[3]
