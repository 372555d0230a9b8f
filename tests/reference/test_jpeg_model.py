"""JPEG without a file: the reference vectors, and Pillow's own compression."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from .jpeg_model import jpeg_round_trip


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "quality"), [("q30", 30), ("q60", 60), ("q95", 95), ("q_mixed", torch.tensor([35.0, 80.0])), ("odd", 50)]
)
def test_the_model_equals_the_reference(parity, name, quality):
    x = parity.vectors("degradation")["x"] / 255
    x = x[..., :45, :51] if name == "odd" else x
    parity.check("degradation", f"jpeg.{name}", jpeg_round_trip(x, quality, transposed=True), 1e-5)


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_the_luma_is_that_of_a_real_file_to_its_rounding(retina, quality):
    grey, buffer = retina[..., 1], io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=quality)
    real = np.asarray(Image.open(buffer)).astype(float)
    model = jpeg_round_trip(torch.from_numpy(grey).expand(1, 3, -1, -1) / 255, quality)
    error = np.abs(model[0, 0].numpy() * 255 - real)
    assert error.mean() < 0.5  # a file is in whole levels, and so is its table


def test_lower_quality_loses_more(retina):
    x = torch.from_numpy(retina).permute(2, 0, 1)[None] / 255
    errors = [(jpeg_round_trip(x, quality) - x).square().mean() for quality in (20, 50, 80, 95)]
    assert errors == sorted(errors, reverse=True)
