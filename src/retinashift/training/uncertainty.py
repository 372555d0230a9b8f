"""Train the head that predicts the scale of the error of each result pixel; the denoiser stays as it is.

The error e is the result's own, after self-check, back-projections and limits; the loss is the likelihood of a Laplace
distribution: log s + |e| / s (Kendall, Gal, 2017, arXiv 1703.04977, with absolute errors).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.data.photographs import Item
from retinashift.imaging.degradation.pipeline import Camera, Degradation
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.uncertainty_head import UncertaintyHead
from retinashift.training.batches import make_batch, quantise
from retinashift.training.pool import PhotographSet
from retinashift.training.settings import CropSettings

CACHE_GIB = 2.0


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained. The crops are those of many cameras; see `CropSettings` and `Camera`."""

    steps: int = 320
    updates: int = 4
    """Of the head for each batch: one on the batch, the others on batches kept from before, since the denoiser's call
    costs far more than the head's."""
    kept: int = 32
    """Batches whose features are kept."""
    batch_size: int = 8
    learning_rate: float = 2e-3
    seed: int = 0
    hidden: int = 64
    flat_share: int = 16
    """One crop in this many has a single colour, where the result makes no error."""
    crop: CropSettings = field(
        default_factory=lambda: CropSettings(
            size=192, rescale_min=0.5, rescale_max=3.0, blur_sigma_max=1.0, sharpen_max=0.5, tint_max=0.15,
            expose_max=1.0, aperture_share=0.15,
        )
    )  # fmt: skip
    degradation: Degradation = field(
        default_factory=lambda: Camera(
            clean_share=0.8, blur_probability=1.0, isotropic=(0.5, 4.0), anisotropic=(0.5, 4.0), defocus=(0.5, 5.0),
            motion=(1.0, 10.0), noise_probability=0.3, noise=(0.0005, 0.01), mosaic_probability=0.1,
            jpeg_probability=0.3, jpeg=(2.0, 30.0),
        )
    )  # fmt: skip


def train_head(
    pipeline: ResShiftPipeline,
    items: Iterable[Item],
    settings: HeadTraining | None = None,
    on_step: Callable[[int, float], object] | None = None,
) -> UncertaintyHead:
    """A head for the pipeline's denoiser.

    Args:
        items: photographs; every set counts the same.
        settings: None takes the defaults.
        on_step: called after each step with its number, from 1, and the loss.

    Raises:
        ValueError: the denoiser is no `LightNet` on pixels.
    """
    settings = settings or HeadTraining()
    net = pipeline.denoiser
    if not (net.streams and pipeline.image_codec.lossless):
        raise ValueError("the uncertainty head reads the features of a LightNet on pixels; this checkpoint has none")
    torch.manual_seed(settings.seed)
    head = UncertaintyHead(net.config.width, settings.hidden, net.config.factor).to(net.device)
    photographs = PhotographSet(list(items), cache_gib=CACHE_GIB, balance="set")
    optimiser = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, settings.steps * settings.updates, pct_start=0.05, cycle_momentum=False
    )
    kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=settings.kept)
    draw = random.Random(settings.seed)
    for step in range(settings.steps):
        positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        batch = make_batch(
            photographs, settings.crop, pipeline.config.scale, settings.seed, positions, settings.degradation
        )
        hr, lr = (_flattened(x, settings.flat_share, positions).to(net.device) for x in (batch.hr, batch.lr))
        with torch.autocast(net.device.type, torch.bfloat16), torch.no_grad():
            result, features = faithful_result(pipeline, lr)
        error = (result - hr).abs().mean(1, keepdim=True)  # (B, 1, S, S), the mean over colours
        kept.append((features, error))
        losses = []
        for features, error in [kept[-1], *draw.choices(kept, k=settings.updates - 1)]:
            with torch.autocast(net.device.type, torch.bfloat16):
                log_scale = F.pixel_shuffle(head(features), net.config.factor)  # (B, 1, S, S)
            loss = (log_scale + error * torch.exp(-log_scale)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            rate.step()
            losses.append(loss.item())
        if on_step is not None:
            on_step(step + 1, losses[0])
    return head.eval()


def faithful_result(pipeline: ResShiftPipeline, lr: Tensor) -> tuple[Tensor, Tensor]:
    """The default result of inputs, (B, 3, H, W) of 8 bit in [0, 1], and the features it was made from.

    Args:
        lr: (B, 3, h, w) of 8 bit in [0, 1].
    """
    net, codec = pipeline.denoiser, pipeline.image_codec
    pixels = lr.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = pipeline(list(pixels), num_inference_steps=1).images  # (H, W, 3) uint8 each
    result = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(lr) / 255
    lr = lr * 2 - 1
    y0 = codec.encode(upsample_bicubic(lr, pipeline.config.scale, pipeline.config.upsampling))
    return result, net.features(y0, len(pipeline.scheduler) - 1, lr)


def _flattened(images: Tensor, share: int, positions: Iterable[int]) -> Tensor:
    """Each image at a multiple of `share` replaced by its mean colour."""
    flat = torch.tensor([position % share == 0 for position in positions])[:, None, None, None]
    return torch.where(flat, quantise(images.mean((2, 3), keepdim=True)), images)
