"""Train the head that predicts the scale of the error of each result pixel; the denoiser stays as it is.

The error e is the result's own, after self-check, back-projections and limits; the loss is the likelihood of a Laplace
distribution: log s + |e| / s (Kendall, Gal, 2017, arXiv 1703.04977, with absolute errors).
"""

import random
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.data.photographs import Item
from retinashift.imaging.degradation.pipeline import Camera, Degradation
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.uncertainty_head import UncertaintyHead
from retinashift.training.batches import PhotographSet, make_batch, quantise
from retinashift.training.settings import CropSettings

UPDATES, KEPT = 6, 32
"""Of the head for each batch: one on the batch, the others on batches whose features are kept, since the denoiser's
call costs far more than the head's."""
BATCH, HIDDEN, LEARNING_RATE, CACHE_GIB = 8, 64, 2e-3, 2.0
FLAT = 16  # one crop in this many has a single colour, where the result makes no error
CROP = CropSettings(
    size=192, rescale_min=0.5, rescale_max=3.0, blur_sigma_max=1.0, sharpen_max=0.5, tint_max=0.15, expose_max=1.0,
    aperture_share=0.15,
)  # fmt: skip
CAMERA = Camera(
    clean_share=0.9, blur_probability=1.0, isotropic=(0.5, 4.0), anisotropic=(0.5, 4.0), defocus=(0.5, 5.0),
    motion=(1.0, 10.0), noise_probability=0.3, noise=(0.0005, 0.01), mosaic_probability=0.1, jpeg_probability=0.3,
    jpeg=(2.0, 30.0),
)  # fmt: skip
"""The crops are those of many cameras, and so are the inputs of a checkpoint for clean ones."""
WIDE_SHARE, NEAR_CROP = 0.3, CROP.model_copy(update={"rescale_min": 0.8, "rescale_max": 1.5})
"""After this share of the steps, crops lie near their photographs' own scale, which ranks errors better."""


def train_head(
    pipeline: ResShiftPipeline,
    items: Iterable[Item],
    steps: int,
    seed: int,
    track: Callable[[range], Iterable[int]],
    degradation: Degradation = CAMERA,
) -> UncertaintyHead:
    """A head for the pipeline's denoiser. ValueError if that is no `LightNet` on pixels.

    Args:
        items: photographs; every set counts the same.
        steps: batches of results to learn from.
        seed: of the weights and the samples.
        track: shows how many of the numbers in a range are done, and returns them.
        degradation: of the inputs.
    """
    net = pipeline.denoiser
    if not (net.streams and pipeline.image_codec.lossless):
        raise ValueError("the uncertainty head reads the features of a LightNet on pixels; this checkpoint has none")
    torch.manual_seed(seed)
    head = UncertaintyHead(net.config.width, HIDDEN, net.config.factor).to(net.device)
    photographs = PhotographSet(list(items), cache_gib=CACHE_GIB, balance="set")
    optimiser = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, steps * UPDATES, pct_start=0.05, cycle_momentum=False
    )
    kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=KEPT)
    draw = random.Random(seed)
    for step in track(range(steps)):
        positions = range(step * BATCH, (step + 1) * BATCH)
        crop = CROP if step < WIDE_SHARE * steps else NEAR_CROP
        batch = make_batch(photographs, crop, pipeline.config.scale, seed, positions, degradation)
        flat = torch.tensor([position % FLAT == 0 for position in positions])[:, None, None, None]
        lr, hr = (
            torch.where(flat, quantise(x.mean((2, 3), keepdim=True)), x).to(net.device) for x in (batch.lr, batch.hr)
        )
        with torch.autocast(net.device.type, torch.bfloat16), torch.no_grad():
            result, features = _faithful_result(pipeline, lr)
        kept.append((features, (result - hr).abs().mean(1, keepdim=True)))  # errors (B, 1, S, S), mean over colours
        for features, error in [kept[-1], *draw.choices(kept, k=UPDATES - 1)]:
            with torch.autocast(net.device.type, torch.bfloat16):
                log_scale = F.pixel_shuffle(head(features), net.config.factor)  # (B, 1, S, S)
            loss = (log_scale + error * torch.exp(-log_scale)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            rate.step()
    return head.eval()


def _faithful_result(pipeline: ResShiftPipeline, lr: Tensor) -> tuple[Tensor, Tensor]:
    """The default result of inputs (B, 3, h, w) of 8 bit in [0, 1], (B, 3, H, W), and the features it was made from."""
    net, codec = pipeline.denoiser, pipeline.image_codec
    pixels = lr.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = pipeline(list(pixels), num_inference_steps=1).images  # (H, W, 3) uint8 each
    result = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(lr) / 255
    lr = lr * 2 - 1
    y0 = codec.encode(upsample_bicubic(lr, pipeline.config.scale, pipeline.config.upsampling))
    return result, net.features(y0, len(pipeline.scheduler) - 1, lr)
