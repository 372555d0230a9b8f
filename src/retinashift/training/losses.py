"""What is minimised: the errors of the papers, for the denoiser and for the decoder of a learned codec."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.models.perceptual import LPIPS

ROUNDING = 1e-5
"""About the squared error, on [-1, 1], of rounding to 8 bit: below it a sample counts no more than its share."""


def squared_error(
    scheduler: ResShiftScheduler, prediction: Tensor, x0: Tensor, y0: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Mean squared error of the prediction for each sample, (B,), in float32.

    The error of the scaled noise is divided by its variance, kappa^2 eta_t, so that it is that of the noise.

    Args:
        prediction, x0, y0, noise: (B, C, H, W). timesteps: (B,).
    """
    target = scheduler.target(x0, y0, noise, timesteps)
    error = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if scheduler.config.prediction_type == "scaled_noise":
        variance = scheduler.config.kappa**2 * scheduler.eta.float().to(error.device)[timesteps]
        return error / variance
    return error


def perceptual_error(lpips: LPIPS, codec: VQModel | None, x0: Tensor, hr: Tensor) -> Tensor:
    """LPIPS between the decoded estimate and the photograph, (B,), with the gradient through the frozen decoder.

    Args:
        codec: None if x0 is the image itself.
        x0: the estimate, (B, C, h, w); it is quantised, and the gradient passes straight through that.
        hr: (B, 3, H, W) in [-1, 1].
    """
    image = x0 if codec is None else codec.decode(x0).sample
    return lpips(image.float().clamp(-1, 1), hr.float())


def combined(errors: Tensor, perceptual: Tensor | None, mse: float, lpips: float, log: float = 0.0) -> Tensor:
    """mse * errors + log * log(errors) + lpips * perceptual, all (B,).

    One LPIPS that is no number leaves the squared errors alone.
    """
    plain = mse * errors
    if log:
        plain = plain + log * torch.log(errors + ROUNDING)
    if perceptual is None:
        return plain
    usable = torch.isfinite(perceptual).all()
    return plain + lpips * torch.where(usable, perceptual, torch.zeros_like(perceptual))
