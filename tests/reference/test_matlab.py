"""MATLAB's conventions against the reference vectors, and against Pillow where both say the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.pictures import Canvas, Prepared

from .matlab import imresize, rgb_to_ycbcr


@pytest.mark.shared
def test_resizing_equals_the_reference(parity):
    rgb = parity.vectors("image_ops")["retina_u8"].numpy() / 255
    gray = rgb[..., 1]
    inputs = {
        "rgb.x0.25": rgb, "rgb.x0.5": rgb, "rgb.x2": rgb[:36, :48], "rgb.x4": rgb[:18, :24],
        "gray.x0.25": gray, "gray.x4": gray[:18, :24],
        "odd53x70.x0.25": rgb[:53, :70], "odd53x70.x0.5": rgb[:53, :70],
    }  # fmt: skip
    for name, pixels in inputs.items():
        resized = torch.from_numpy(imresize(pixels, float(name.split(".x")[1])))
        parity.check("image_ops", f"imresize.{name}", resized, 1e-5)
    low = np.rint(imresize(rgb, 0.25).clip(0, 1) * 255).astype(np.uint8)
    parity.check("image_ops", "lr_u8", torch.from_numpy(low), 0)
    enlarged = imresize(low / 255, 4)
    rounded = torch.from_numpy(np.rint(enlarged.clip(0, 1) * 255).astype(np.uint8))
    parity.check("image_ops", "bicubic_sr_u8", rounded, 0)
    parity.check("image_ops", "tensor2img", as_picture(torch.from_numpy(enlarged)), 0)


def as_picture(image: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) in [0, 1] and beyond to bytes by the pipeline's own way."""
    canvas = Canvas(Prepared(torch.zeros(1, 3, 1, 1), grey=False, levels=255), image.shape[:2], "np")
    canvas.write(image.permute(2, 0, 1)[None] * 2 - 1)
    return torch.from_numpy(canvas.finished())


@pytest.mark.shared
def test_colours_equal_the_reference(parity):
    rgb = parity.vectors("image_ops")["retina_u8"].numpy()
    full = rgb_to_ycbcr(rgb)
    parity.check("image_ops", "ycbcr.full_u8", torch.from_numpy(full), 0)
    parity.check("image_ops", "ycbcr.y_u8", torch.from_numpy(full[..., 0].copy()), 0)
    parity.check("image_ops", "ycbcr.y_f32", torch.from_numpy(rgb_to_ycbcr(rgb / 255)[..., 0].copy()), 1e-5)


def test_reducing_agrees_with_pillow_to_its_rounding(retina):
    ours = imresize(retina / 255, 0.25) * 255
    assert np.abs(ours - bicubic_pillow(retina, 4))[2:-2, 2:-2].max() < 1.01


def test_a_flat_picture_stays_flat_whatever_the_factor():
    for scale in (0.25, 0.3, 2, 3.7):
        assert np.allclose(imresize(np.full((13, 10), 0.4), scale), 0.4)
