"""Filling in through the pipeline: what is known comes back as it was, and sizes are free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec


@pytest.fixture(scope="module")
def inpainting() -> ResShiftPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = SwinUNet(
            image_size=8, model_channels=32, channel_mult=[1], num_res_blocks=[1], attention_resolutions=[8],
            num_head_channels=16, swin_embed_dim=32, window_size=4, mlp_ratio=2, lq_size=32, cond_mask=True,
            attention_mask="official",
        ).eval()  # fmt: skip
        codec = VQCodec(block_out_channels=[32, 32, 32], layers_per_block=1, num_vq_embeddings=8).eval()
    return ResShiftPipeline(denoiser, ResShiftScheduler(4), codec, scale=1, upsampling="torch", default_steps=2)


def hole(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[5:12, 7:20] = 255
    return mask


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 50)])
def test_what_is_known_comes_back_and_what_lay_under_the_mask_does_not_matter(inpainting, retina, height, width):
    picture, mask = retina[:height, :width], hole(height, width)
    filled = inpainting(picture, mask=mask).images[0]
    assert filled.shape == picture.shape
    assert np.array_equal(filled[mask == 0], picture[mask == 0])
    covered = picture.copy()
    covered[mask > 0] = 77
    assert np.array_equal(inpainting(covered, mask=Image.fromarray(mask)).images[0], filled)
    assert not np.array_equal(filled[mask > 0], picture[mask > 0])


def test_a_mask_that_is_missing_misshapen_or_not_asked_for_is_refused(inpainting, retina, tiny_pipeline):
    with pytest.raises(ValueError, match="fills in, so a mask is needed"):
        inpainting(retina)
    with pytest.raises(ValueError, match="the mask is 3x2 and its image 128x128"):
        inpainting(retina, mask=np.ones((2, 3)))
    with pytest.raises(ValueError, match="2 masks were given for 1"):
        inpainting([retina], mask=[hole(128, 128)] * 2)
    with pytest.raises(ValueError, match="does not fill in"):
        tiny_pipeline()(retina, mask=hole(128, 128))
