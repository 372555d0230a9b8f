"""How far samples of the chain lie apart, pixel by pixel: where they disagree, the detail was not in the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from retinashift.diffusion.noise import stream_generator
from retinashift.imaging.photograph import Photograph


def sample_spread(
    pipeline: Any, photograph: Photograph, samples: int, seed: int, watch: Callable[[dict[str, Any]], None]
) -> np.ndarray:
    """Standard deviation over full chains, in grey levels of 255, (H, W) float32; the mean over the channels.

    It is the spread of the model's own samples and is not calibrated. Welford's recurrence: memory does not grow.
    """
    peak = np.iinfo(photograph.pixels.dtype).max
    colour = photograph.pixels
    if photograph.has_alpha:
        colour = colour[..., 0] if photograph.channels == 2 else colour[..., :3]
    lr = colour.astype(np.float32) / peak
    steps = pipeline.scheduler.config.num_train_timesteps
    mean = squares = np.zeros((), np.float32)
    for count in range(1, samples + 1):
        generator: torch.Generator = stream_generator(seed, count)
        sample = pipeline(lr, num_inference_steps=steps, generator=generator, callback=watch).images[0]
        delta = sample - mean
        mean = mean + delta / count
        squares = squares + delta * (sample - mean)
    deviation = 255 * np.sqrt(squares / (samples - 1))
    return deviation if deviation.ndim == 2 else deviation.mean(-1)  # (H, W)
