"""Pictures by bands: the same in bounded memory, also where memory runs out."""

import numpy as np
import pytest
import torch

from retinashift.inference import chain
from retinashift.inference.chain import plan_bands, retry_with_smaller_bands


def picture(height=61, width=47):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("steps", "members"), [(1, 1), (4, 1), (4, 2)])
def test_bands_change_no_grey_level_that_could_be_seen(tiny_pipeline, monkeypatch, steps, members):
    pipe = tiny_pipeline()
    whole = pipe(picture(), steps, ensemble_size=members, back_projections=2).images[0].astype(int)
    monkeypatch.setattr(chain, "BAND_ROWS", 5)
    banded = pipe(picture(), steps, ensemble_size=members, back_projections=2).images[0].astype(int)
    assert np.abs(banded - whole).max() <= 1
    assert (banded != whole).mean() < 0.001


def test_memory_that_runs_out_halves_the_bands_and_the_picture_is_the_same(tiny_pipeline, monkeypatch):
    pipe = tiny_pipeline()
    expected = pipe(picture(), 2).images[0].astype(int)
    real, tried = chain.LightStream.push, []

    def push(self, deviation, lq):
        tried.append(deviation.shape[-2])
        if deviation.shape[-2] > 10 and self.pushed:
            raise torch.OutOfMemoryError("simulated")
        return real(self, deviation, lq)

    monkeypatch.setattr(chain, "BAND_ROWS", 32)
    monkeypatch.setattr(chain.LightStream, "push", push)
    assert np.abs(pipe(picture(), 2).images[0].astype(int) - expected).max() <= 1
    assert {32, 16, 8} <= set(tried)


def test_halving_goes_on_where_it_was_and_gives_up_at_one_row():
    def bands(rows):
        for top in range(0, 20, rows):
            if rows > 3 and top >= 8:
                raise MemoryError
            yield torch.arange(top, min(20, top + rows)).view(1, 1, -1, 1)

    assert torch.cat(list(retry_with_smaller_bands(bands, 8)), dim=-2).flatten().tolist() == list(range(20))

    def never(rows):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        yield

    with pytest.raises(MemoryError, match="one row of the picture"):
        next(retry_with_smaller_bands(never, 8))

    def broken(rows):
        raise RuntimeError("something else")
        yield

    with pytest.raises(RuntimeError, match="something else"):
        next(retry_with_smaller_bands(broken, 8))


def test_less_memory_means_thinner_bands(tiny_pipeline):
    net = tiny_pipeline().denoiser
    counts = [plan_bands((500, 2000), net, memory)[0] for memory in (2**34, 9 * 10**7, 5 * 10**7, 0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == chain.LEAST_ROWS
    assert counts[-1] == chain.FEWEST_ROWS


def test_freed_memory_goes_back_between_bands_only_where_it_is_scarce(tiny_pipeline, monkeypatch):
    given = []
    monkeypatch.setattr(chain, "trim_heap", lambda: given.append(1))
    pipe = tiny_pipeline()
    pipe(picture(), memory=2**40)
    assert not given
    pipe(picture(), memory=1)
    assert len(given) >= 61 / chain.FEWEST_ROWS  # thin bands


@pytest.mark.parametrize(("share", "scarce"), [(0.24, False), (0.26, True)])
def test_memory_is_scarce_where_bands_take_more_than_a_quarter_of_it(tiny_pipeline, monkeypatch, share, scarce):
    given, pipe = [], tiny_pipeline()
    _, needed = plan_bands(picture().shape[:2], pipe.denoiser, 2**40)
    monkeypatch.setattr(chain, "trim_heap", lambda: given.append(1))
    monkeypatch.setattr("retinashift.inference.pipeline.spare_memory", lambda device, budget: budget)
    pipe(picture(), memory=int(needed / share) + 16 * picture().size)  # the result is held beside the bands
    assert bool(given) == scarce


def test_a_limit_that_the_thinnest_bands_exceed_is_named(tiny_pipeline, caplog):
    pipe = tiny_pipeline()
    pipe(picture(), memory=2**40)
    assert not caplog.messages
    pipe(picture(), memory=1)
    assert [message for message in caplog.messages if "0 MiB are left of the memory limit" in message]


def test_what_the_result_takes_of_the_memory_is_not_planned_for_bands(tiny_pipeline, monkeypatch):
    room, real = [], chain.plan_bands
    monkeypatch.setattr(
        "retinashift.inference.chain.plan_bands",
        lambda size, net, memory, steps: room.append(memory) or real(size, net, memory, steps),
    )
    monkeypatch.setattr("retinashift.inference.pipeline.spare_memory", lambda device, budget: budget)
    pipe, result = tiny_pipeline(head=True), 16 * picture().size
    pipe(picture(), memory=10**9)
    pipe(picture(), 4, ensemble_size=2, memory=10**9)
    pipe(picture(), output_uncertainty=True, memory=10**9)
    mean, scales = 4 * result, 4 * result // 3
    assert [10**9 - given for given in room] == [result, *2 * [result + mean], result + scales]


@pytest.mark.parametrize("steps", [1, 4])
def test_no_layer_is_given_thicker_bands_at_the_end_than_before(tiny_pipeline, monkeypatch, steps):
    """Each layer of each step lags a row behind the one before it; what they owe at the end does not come at once."""
    thickest, real = [], chain.LightStream._pass

    def watched(self, given, closing):
        result = real(self, given, closing)
        thickest.append((given.shape[-2], result.shape[-2]))
        return result

    monkeypatch.setattr(chain, "BAND_ROWS", 2)
    monkeypatch.setattr(chain, "FEWEST_ROWS", 2)
    monkeypatch.setattr(chain.LightStream, "_pass", watched)
    tiny_pipeline()(picture(), steps)
    given, made = np.max(thickest, axis=0)
    assert given == 2
    assert made <= 4


def test_bands_of_a_narrow_picture_are_thicker_than_those_of_a_wide_one(tiny_pipeline):
    net = tiny_pipeline().denoiser
    assert [plan_bands((100, width), net, 2**34)[0] for width in (100, 700, 10_000)] == [
        chain.BAND_ROWS, chain.BAND_PIXELS // 700, chain.LEAST_ROWS
    ]  # fmt: skip


def test_memory_without_sense_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="memory is 0"):
        tiny_pipeline()(picture(), memory=0)
