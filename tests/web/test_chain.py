"""The strip is the chain of the pipeline: same noise law, same steps, the last state the pipeline's own result."""

import numpy as np
import pytest
import torch

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.web.chain import draw_chain


@pytest.fixture(scope="module")
def pipeline():
    return ResShiftPipeline.from_shipped()


def test_frames_go_from_the_noisy_start_and_y0_by_estimates_and_states_to_x0(pipeline, retina):
    lr = np.ascontiguousarray(retina[:16, :20])
    frames = draw_chain(pipeline, lr, 0)
    assert [frame.name for frame in frames] == [
        "x4, the noisy start", "y0, enlarged bicubically", "estimate of x0 at step 4", "x3",
        "estimate of x0 at step 3", "x2", "estimate of x0 at step 2", "x1", "x0, the result",
    ]  # fmt: skip
    assert all(frame.pixels.shape == (64, 80, 3) and frame.pixels.dtype == np.uint8 for frame in frames)
    assert np.array_equal(frames[1].pixels, enlarge(lr, 4, "bicubic"))
    noise = (frames[0].pixels.astype(float) - frames[1].pixels).std() / 127.5
    assert noise == pytest.approx(pipeline.scheduler.init_noise_sigma, rel=0.1)


def test_the_last_frame_is_what_the_pipeline_gives_for_the_same_seed(pipeline, retina):
    lr = np.ascontiguousarray(retina[:16, :20])
    last = draw_chain(pipeline, lr, 5)[-1].pixels.astype(int)
    result = pipeline(lr, 4, generator=torch.Generator().manual_seed(5), back_projections=0).images[0]
    assert np.abs(last - result).max() <= 1


def test_the_same_seed_gives_the_same_strip_and_another_one_another(pipeline, retina):
    lr = np.ascontiguousarray(retina[:8, :8])
    one, again, other = (draw_chain(pipeline, lr, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0].pixels, other[0].pixels)
