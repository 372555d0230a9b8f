"""Photographs of a run: kept or read again, drawn evenly, and known by their visible part."""

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.data.photographs import FileRef, Item, Source, list_source
from retinashift.training.batches import PhotographSet


def test_photographs_beyond_the_cache_are_read_again_and_equal(photographs):
    items = list_source(Source(str(photographs)))
    kept, unkept = PhotographSet(items, cache_gib=1), PhotographSet(items, cache_gib=0)
    assert kept.pixels(items[0].hr) is kept.pixels(items[0].hr)
    assert unkept.pixels(items[0].hr) is not unkept.pixels(items[0].hr)
    assert (kept.pixels(items[0].hr) == unkept.pixels(items[0].hr)).all()


def test_balance_draws_sets_or_folders_equally_often(photographs):
    names = ["a/x_1.png", "a/x_2.png", "a/x_3.png", "a/y_1.png", "b/x_4.png"]
    items = [Item(FileRef(name, photographs / name)) for name in names]
    shares = {}
    for balance in ("photograph", "set", "folder"):
        pool, numbers = PhotographSet(items, cache_gib=0, balance=balance), np.random.default_rng(0).random((4000, 2))
        shares[balance] = torch.bincount(torch.tensor([pool.pick(*pair) for pair in numbers])) / 4000
    assert torch.allclose(shares["photograph"], torch.full((5,), 0.2), atol=0.03)
    assert torch.allclose(shares["set"], torch.tensor([1, 1, 1, 4, 1]) / 8, atol=0.03)
    assert torch.allclose(shares["folder"], torch.tensor([1, 1, 1, 1, 4]) / 8, atol=0.03)


def test_the_visible_share_of_a_square_is_that_of_its_bright_pixels(tmp_path):
    pixels = np.zeros((61, 83, 3), np.uint8)
    pixels[16:48, 24:] = 200
    Image.fromarray(pixels).save(tmp_path / "eye.png")
    pool = PhotographSet(list_source(Source(str(tmp_path))), cache_gib=1)
    assert pool.measured(0)[0] == (61, 83)
    assert pool.visible(0, 0, 0, 16) == 0
    assert pool.visible(0, 16, 24, 32) == 1
    assert pool.visible(0, 0, 0, 48) == pytest.approx(1 / 3)
    assert pool.visible(0, 29, 51, 32) == pytest.approx(0.6, abs=0.15)  # to within its outermost pixels
