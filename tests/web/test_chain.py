"""The strip is the chain of the pipeline: same noise law, same steps, the last state the pipeline's own result."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.web.settings import PageSettings, UpscaleOptions
from retinashift.web.work import upscale


def chain(lr, seed):
    """Pictures by what they are, as a job gives them."""
    file = io.BytesIO()
    Image.fromarray(lr).save(file, "PNG")
    options = UpscaleOptions(chain=True, seed=seed)
    facts, files = upscale(PageSettings(), ("eye.png", file.getvalue()), options, None, lambda share: None)
    pictures = [np.asarray(Image.open(io.BytesIO(files[name]))) for name in facts["files"]]
    return dict(zip(facts["labels"], pictures, strict=True))


def test_frames_go_from_the_noisy_start_and_y0_by_estimates_and_states_to_x0(retina):
    lr = np.ascontiguousarray(retina[:16, :20])
    frames = chain(lr, 0)
    assert list(frames) == [
        "x4, the noisy start", "y0, enlarged bicubically", "estimate of x0 at step 4", "x3",
        "estimate of x0 at step 3", "x2", "estimate of x0 at step 2", "x1", "x0, the result",
    ]  # fmt: skip
    start, y0, *_ = frames.values()
    assert all(frame.shape == (64, 80, 3) and frame.dtype == np.uint8 for frame in frames.values())
    assert np.array_equal(y0, enlarge(lr, 4, "bicubic"))
    noise = (start.astype(float) - y0).std() / 127.5
    assert noise == pytest.approx(ResShiftPipeline.from_shipped().scheduler.init_noise_sigma, rel=0.1)


def test_the_last_frame_is_what_the_pipeline_gives_for_the_same_seed(retina):
    lr = np.ascontiguousarray(retina[:16, :20])
    last = chain(lr, 5)["x0, the result"].astype(int)
    result = ResShiftPipeline.from_shipped()(
        lr, 4, generator=torch.Generator().manual_seed(5), back_projections=0
    ).images[0]
    assert np.abs(last - result).max() <= 1


def test_the_same_seed_gives_the_same_strip_and_another_one_another(retina):
    lr = np.ascontiguousarray(retina[:8, :8])
    one, again, other = (chain(lr, seed)["x1"] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
