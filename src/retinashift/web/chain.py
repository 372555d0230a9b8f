"""The chain of one picture, state by state, for those who want to see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retinashift.diffusion.noise import noise_of, noise_seeds
from retinashift.diffusion.sampling import sample
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.swin_unet import pad_to_multiple


@dataclass(frozen=True)
class Frame:
    """A picture of the chain, (H, W, 3) uint8."""

    name: str
    pixels: np.ndarray


@torch.inference_mode()
def draw_chain(pipeline: ResShiftPipeline, lr: np.ndarray, seed: int) -> list[Frame]:
    """x_T, y0, then after each step the estimate of x0 that it was made from and the state, the last of which is x0.

    The whole chain of T steps, without back-projection: what the method itself does.

    Args:
        lr: (h, w, 3) uint8.
        seed: of the noise, which is that of a pipeline call with `torch.Generator().manual_seed(seed)`.
    """
    denoiser, scheduler, codec = pipeline.denoiser, pipeline.scheduler, pipeline.image_codec
    scale = pipeline.config.scale
    given = torch.from_numpy(lr).permute(2, 0, 1)[None].to(pipeline.device, denoiser.dtype) / 127.5 - 1  # (1, 3, h, w)
    given = pad_to_multiple(given, denoiser.size_multiple * denoiser.lq_ratio)
    y0 = codec.encode(upsample_bicubic(given, scale, pipeline.config.upsampling))
    (stream,) = noise_seeds(torch.Generator().manual_seed(seed), 1)
    draw = noise_of(stream, 0, y0)

    def picture(x: Tensor) -> np.ndarray:
        image = codec.decode(x)[0, :, : lr.shape[0] * scale, : lr.shape[1] * scale].float()
        return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    scheduler.set_timesteps(scheduler.config.num_train_timesteps)
    x_t = scheduler.init_noise(y0, noise=draw(0))
    timesteps = scheduler.timesteps.tolist()
    frames = [
        Frame(f"x{timesteps[0] + 1}, the noisy start", picture(x_t)),
        Frame("y0, enlarged bicubically", enlarge(lr, scale, "bicubic")),
    ]
    states = sample(scheduler, lambda x, t: denoiser(x, t, lq=given).sample, y0, draw)
    for t, (x_t, x0) in zip(timesteps, states, strict=True):
        if t:
            frames += [Frame(f"estimate of x0 at step {t + 1}", picture(x0)), Frame(f"x{t}", picture(x_t))]
    return [*frames, Frame("x0, the result", picture(x_t))]
