"""Published scores, by the reference vectors."""

from __future__ import annotations

import itertools

import pytest
import torch

from .official_metrics import published_psnr, published_ssim


@pytest.mark.shared
def test_scores_equal_the_reference(parity):
    vectors = parity.vectors("image_ops")
    sr, hr = (vectors[name].numpy() for name in ("bicubic_sr_u8", "retina_u8"))
    for border, luma in itertools.product((0, 4), (0, 1)):
        case = f"border{border}_y{luma}"
        psnr = published_psnr(sr, hr, border, bool(luma))
        ssim = published_ssim(sr, hr, border, bool(luma))
        parity.check("image_ops", f"metric.psnr_{case}", torch.tensor(psnr, dtype=torch.float64), 1e-4)
        parity.check("image_ops", f"metric.ssim_{case}", torch.tensor(ssim, dtype=torch.float64), 1e-5)
