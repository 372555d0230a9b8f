"""The share of the work: it only grows, ends at 1, moves within a step, and what it raises ends the work."""

import numpy as np
import pytest

from retinashift.inference import chain


@pytest.mark.parametrize(("count", "members"), [(1, 1), (2, 3)])
def test_the_share_grows_with_bands_steps_members_and_images_to_one(tiny_pipeline, monkeypatch, count, members):
    monkeypatch.setattr(chain, "BAND_ROWS", 8)
    shares = []
    images = [np.full((40, 24, 3), 90, np.uint8)] * count
    tiny_pipeline()(images, 2, ensemble_size=members, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) >= 4 * 2 * count * members  # several times a step
    assert shares[0] <= 0.15 / (count * members)


def test_memory_that_runs_out_does_not_take_the_share_above_one(tiny_pipeline, monkeypatch):
    real, shares = chain.LightStream.push, []

    def push(self, deviation, lq):
        if deviation.shape[-2] > 12:
            raise MemoryError
        return real(self, deviation, lq)

    monkeypatch.setattr(chain.LightStream, "push", push)
    tiny_pipeline()(np.full((40, 24, 3), 90, np.uint8), 2, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_what_a_listener_raises_ends_the_work_within_a_step(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(chain, "BAND_ROWS", 8)

    def stop(share):
        raise KeyError(share)

    with pytest.raises(KeyError, match=r"0\.0"):
        tiny_pipeline()(np.full((40, 24, 3), 90, np.uint8), 2, progress=stop)


def test_a_listener_changes_no_pixel(tiny_pipeline):
    picture = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    silent, watched = tiny_pipeline()(picture, 2), tiny_pipeline()(picture, 2, progress=lambda share: None)
    assert np.array_equal(silent.images[0], watched.images[0])
