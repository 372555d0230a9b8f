"""Files through the pipeline: depth, grey, alpha and metadata stay; a failure is told and stops nothing."""

import numpy as np
import pytest

from retinashift.imaging.files import read_image, write_image
from retinashift.inference.batch import upscale_files
from retinashift.inference.jobs import Job


@pytest.fixture
def upscale(tmp_path, tiny_pipeline):
    def run(pixels, name="eye.png"):
        source, target = tmp_path / name, tmp_path / "out" / name
        write_image(source, pixels)
        outcome = next(iter(upscale_files(tiny_pipeline(), [Job(source, target)], steps=None, seed=0)))
        assert outcome.error == ""
        return read_image(target).pixels

    return run


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 2), (6, 5, 4)])
def test_depth_channels_and_size_of_a_file_are_kept(upscale, dtype, shape):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    out = upscale(pixels)
    assert out.dtype == dtype
    assert out.shape == (24, 20, *shape[2:])


def test_a_constant_alpha_channel_stays_constant_and_does_not_touch_the_colour(upscale):
    colour = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    with_alpha = np.dstack([colour, np.full((6, 5), 200, np.uint8)])
    out = upscale(with_alpha)
    assert (out[..., 3] == 200).all()
    assert np.array_equal(out[..., :3], upscale(colour, "plain.png"))


def test_failures_are_told_and_the_next_file_is_done(tmp_path, tiny_pipeline):
    write_image(tmp_path / "good.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in ("bad.png", "missing.png", "good.png")]
    outcomes = list(upscale_files(tiny_pipeline(), jobs, steps=None, seed=0))
    assert [bool(outcome.error) for outcome in outcomes] == [True, True, False]
    assert "bad.png" in outcomes[0].error
    assert "\n" not in outcomes[0].error
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_a_format_that_cannot_hold_the_picture_is_an_error_and_writes_nothing(tmp_path, tiny_pipeline):
    write_image(tmp_path / "deep.png", np.zeros((4, 4, 3), np.uint16))
    job = Job(tmp_path / "deep.png", tmp_path / "out" / "deep.jpg")
    outcome = next(iter(upscale_files(tiny_pipeline(), [job], steps=None, seed=0)))
    assert outcome.error
    assert not any((tmp_path / "out").iterdir())
