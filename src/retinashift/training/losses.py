"""What a step minimises: the errors of the papers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from retinashift.diffusion.sampling import stream_generator
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.perceptual import LPIPS
from retinashift.training.batches import Batch
from retinashift.training.distillation import distillation_error, open_teacher
from retinashift.training.settings import TrainConfig

NOISE_STREAM = 1
"""Of the streams of one seed, 0 cuts the samples and this one draws their steps and noise."""
ROUNDING = 1e-5
"""About the squared error, on [-1, 1], of rounding to 8 bit: below it a sample counts no more than its share."""


class Objective:
    """The loss of a micro-batch, as the settings weigh its terms.

    Args:
        config: settings of the run.
        pipeline: scheduler and codecs; a learned codec is frozen and moved to the device.
        device: of the run.
        autocast: the precision of the run, for networks that accelerate did not prepare.
    """

    def __init__(
        self,
        config: TrainConfig,
        pipeline: ResShiftPipeline,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self.config, self.pipeline, self.device, self.autocast = config, pipeline, device, autocast
        self.scheduler: ResShiftScheduler = pipeline.scheduler
        self.codec = pipeline.image_codec
        for network in self.codec.networks:
            network.requires_grad_(False).eval().to(device)
        self.teacher = open_teacher(config.distill, pipeline, device) if config.distill.teacher else None
        self.lpips = LPIPS.pretrained(config.loss.lpips_net).to(device) if config.loss.lpips else None
        bound = config.optim.weighting == "bound"
        weight = self.scheduler.loss_weight() if bound else torch.ones(len(self.scheduler))
        self.step_weight = weight.float().to(device)  # (T,)

    def __call__(self, model: nn.Module, batch: Batch, number: int) -> Tensor:
        """The mean loss of a micro-batch, a scalar.

        Args:
            model: what is trained, as accelerate prepared it.
            batch: its samples.
            number: its place among all micro-batches of the run, which alone decides its steps and noise.
        """
        loss = self.config.loss
        lq, hr = ((image * 2 - 1).to(self.device) for image in (batch.lr, batch.hr))  # (B, 3, h, w), (B, 3, H, W)
        with torch.no_grad():
            upscaled = upsample_bicubic(lq, self.config.chain.scale, self.pipeline.config.upsampling)
            x0, y0 = self.codec.encode(hr), self.codec.encode(upscaled)  # (B, C, h', w')
        timesteps, noise = self._draw(number, x0)  # (B,), as x0
        perceptual = None
        if self.teacher is not None:

            def predict(sample: Tensor, timesteps: Tensor, lq: Tensor) -> Tensor:
                return model(sample, timesteps, lq=lq).sample

            with self.autocast():
                errors = distillation_error(self.teacher, predict, x0, y0, lq, noise, self.config.distill.truth)  # (B,)
            return combined(errors, perceptual, loss.mse, 0, loss.log).mean()
        x_t = self.scheduler.add_noise(x0, noise, timesteps, y0)
        prediction = model(self.scheduler.scale_model_input(x_t, timesteps), timesteps, lq=lq).sample
        errors = squared_error(self.scheduler, prediction, x0, y0, noise, timesteps)  # (B,)
        if self.lpips:
            estimate = self.scheduler.predict_x0(prediction, timesteps, x_t, y0)  # (B, C, h', w')
            perceptual = perceptual_error(self.lpips, self.codec.decode(estimate), hr)  # (B,)
        return combined(self.step_weight[timesteps] * errors, perceptual, loss.mse, loss.lpips, loss.log).mean()

    def _draw(self, number: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of the chain (B,) and noise (as `like`) of a micro-batch."""
        generator = stream_generator(self.config.run.seed + (NOISE_STREAM << 32), number, self.device)
        draw: dict[str, Any] = {"generator": generator, "device": self.device}
        timesteps = torch.randint(len(self.scheduler), (like.shape[0],), **draw)
        at_end = torch.rand(like.shape[0], **draw) < self.config.optim.last_step_share
        return torch.where(at_end, len(self.scheduler) - 1, timesteps), torch.randn(like.shape, **draw)


def squared_error(
    scheduler: ResShiftScheduler, prediction: Tensor, x0: Tensor, y0: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Mean squared error of the prediction for each sample, (B,), in float32.

    The error of the scaled noise is divided by its variance, kappa^2 eta_t, so that it becomes the error of the noise.

    Args:
        prediction, x0, y0, noise: (B, C, H, W). timesteps: (B,).
    """
    target = scheduler.target(x0, y0, noise, timesteps)
    error = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if scheduler.config.prediction_type == "scaled_noise":
        variance = scheduler.config.kappa**2 * scheduler.eta.float().to(error.device)[timesteps]
        return error / variance
    return error


def perceptual_error(lpips: LPIPS, image: Tensor, hr: Tensor) -> Tensor:
    """LPIPS (B,) of a decoded estimate, (B, 3, H, W) in about [-1, 1], against the photograph in [-1, 1]."""
    return lpips(image.float().clamp(-1, 1), hr.float())


def combined(errors: Tensor, perceptual: Tensor | None, mse: float, lpips: float, log: float = 0.0) -> Tensor:
    """mse * errors + log * log(errors) + lpips * perceptual, all (B,).

    If one LPIPS is not finite, the perceptual term is left out.
    """
    plain = mse * errors
    if log:
        plain = plain + log * torch.log(errors + ROUNDING)
    if perceptual is None:
        return plain
    usable = torch.isfinite(perceptual).all()
    return plain + lpips * torch.where(usable, perceptual, torch.zeros_like(perceptual))
