"""Tiles keep every position once, stay within their memory, and change nothing that a grader could see."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinashift.inference.regions import Box, cut, grid_within, run_tiles


@given(height=st.integers(1, 60), width=st.integers(1, 60), margin=st.integers(0, 9), largest=st.integers(400, 4000))
def test_tiles_keep_every_position_once_and_read_no_more_than_allowed(height, width, margin, largest):
    box = Box(3, 3 + height, 5, 5 + width)
    seen = np.zeros((80, 80), int)
    for tile in cut(box, *grid_within(height, width, margin, largest)):
        seen[tile.slices] += 1
        read = tile.widened(margin, box)
        assert read.height * read.width <= largest
    assert (seen[box.slices] == 1).all()
    assert seen.sum() == height * width


def test_a_picture_that_fits_is_one_tile():
    assert grid_within(40, 50, 9, 2000) == (1, 1)


def test_memory_below_one_tile_is_an_error_that_says_the_margin():
    with pytest.raises(MemoryError, match="margin of 30 pixels"):
        grid_within(500, 500, 30, 3000)


@given(box=st.tuples(*[st.integers(0, 9)] * 2), size=st.tuples(*[st.integers(1, 9)] * 2))
def test_a_box_and_what_lies_around_it_cover_the_frame_once(box, size):
    frame = Box(0, 18, 0, 18)
    inner = Box(box[0], box[0] + size[0], box[1], box[1] + size[1])
    seen = np.zeros(frame.shape, int)
    for part in [inner, *inner.around(frame)]:
        seen[part.slices] += 1
    assert (seen == 1).all()


def out_of_memory(kind):
    if kind == "torch":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if kind == "python":
        raise MemoryError
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize("kind", ["torch", "python", "allocator"])
def test_a_tile_that_runs_out_of_memory_is_halved_until_it_fits(kind):
    seen = np.zeros((100, 90), int)

    def work(tile):
        if tile.height * tile.width > 1000:
            out_of_memory(kind)
        seen[tile.slices] += 1

    run_tiles(cut(Box(0, 100, 0, 90), 2, 1), work)
    assert (seen == 1).all()


def test_the_smallest_tile_that_runs_out_of_memory_is_an_error_with_a_remedy():
    with pytest.raises(MemoryError, match="close other programs"):
        run_tiles([Box(0, 64, 0, 64)], lambda tile: out_of_memory("torch"))
    with pytest.raises(MemoryError, match="crop the picture"):
        run_tiles([Box(0, 64, 0, 64)], lambda tile: out_of_memory("torch"), halve=False)


def test_any_other_error_is_not_taken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="shape"):
        run_tiles([Box(0, 64, 0, 64)], lambda tile: (_ for _ in ()).throw(RuntimeError("shape mismatch")))


@settings(deadline=None, max_examples=5)
@given(tile=st.integers(16, 40), steps=st.sampled_from([1, 4]), seed=st.integers(0, 99))
def test_a_tiled_picture_equals_the_whole_one_within_a_grey_level(tiny_pipeline, tile, steps, seed):
    pipe = tiny_pipeline()
    lr = np.random.default_rng(seed).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    whole, tiled = (pipe(lr, steps, back_projections=2, tile_size=size).images[0].astype(int) for size in (None, tile))
    assert np.abs(tiled - whole).max() <= 1
    assert (tiled != whole).mean() < 0.001


def test_a_run_that_halves_its_tiles_gives_the_same_picture(tiny_pipeline, monkeypatch):
    pipe = tiny_pipeline()
    lr = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
    whole = pipe(lr, 1).images[0].astype(int)
    forward, sizes = pipe.denoiser.forward, []

    def scarce(sample, *args, **kwargs):
        if sample.shape[-1] * sample.shape[-2] > 2500:
            out_of_memory("torch")
        sizes.append(sample.shape[-2:])
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(pipe.denoiser, "forward", scarce)
    assert np.abs(pipe(lr, 1).images[0].astype(int) - whole).max() <= 1
    assert len(sizes) > 1


def test_edges_of_tiles_are_not_steeper_than_the_rest(tiny_pipeline):
    """The mean difference of neighbours across tile borders is that of the same places without tiles."""
    pipe = tiny_pipeline()
    lr = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, tiled = (pipe(lr, 4, tile_size=size).images[0].astype(float) for size in (None, 16))
    borders = np.arange(64, 256, 64)
    steps = [np.abs(image[:, borders] - image[:, borders - 1]).mean() for image in (whole, tiled)]
    assert steps[1] == pytest.approx(steps[0], rel=0.02)


def test_the_stated_receptive_radius_is_the_true_one(tiny_pipeline):
    """A change at one position reaches exactly as far as the network says."""
    net = tiny_pipeline().denoiser
    lq = torch.zeros(1, 3, 41, 41)
    sample = torch.zeros(1, 48, 41, 41)
    base = net(sample, 3, lq).sample
    for name in ("sample", "lq"):
        moved = {"sample": sample.clone(), "lq": lq.clone()}
        moved[name][..., 20, 20] += 1
        changed = (net(moved["sample"], 3, moved["lq"]).sample - base).abs().sum(1)[0] > 0  # (41, 41)
        rows = changed.any(1).nonzero().flatten()
        reach = max(20 - int(rows.min()), int(rows.max()) - 20)
        assert reach <= net.receptive_radius
    assert reach >= net.receptive_radius - 1


def test_a_tile_size_without_sense_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="tile_size is 0"):
        tiny_pipeline()(np.zeros((4, 4, 3), np.uint8), tile_size=0)
