"""Training samples: cut, rescale, blur, turn and degrade photographs, on whatever device they lie.

Every random choice of a sample comes from one generator seeded by (seed, position), so a sample is the same whatever
the batch size, the number of processes, or the moment a run was interrupted. The choices are drawn on the CPU, so that
they cost a GPU no synchronisation; the pixels never leave the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.diffusion.noise import stream_generator
from retinashift.imaging.realistic import DegradationSettings, realistic
from retinashift.training.augmentation import as_another_camera, uniform
from retinashift.training.config import CropSettings
from retinashift.training.sources import DataError, PhotographSet

NEARLY_BLACK = 16 / 255


def bicubic_reduce(hr: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, H/scale, W/scale), rounded to 8 bit: `bicubic-pillow` in torch.

    Pillow reduces the rows, rounds, then reduces the columns and rounds again; so do these two passes.
    """
    height, width = hr.shape[-2:]
    narrow = quantise(_bicubic(hr, (height, width // scale)))  # (B, C, H, w)
    return quantise(_bicubic(narrow, (height // scale, width // scale)))  # (B, C, h, w)


def _bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)


def quantise(image: Tensor) -> Tensor:
    """Round [0, 1] to the 256 levels that a file would hold."""
    return image.mul(255).round().clamp(0, 255).div(255)


@dataclass(frozen=True)
class Batch:
    """`hr` (B, 3, S, S) and `lr` (B, 3, S/scale, S/scale), float32 in [0, 1], of the samples at `positions`."""

    hr: Tensor
    lr: Tensor
    positions: Sequence[int]


def make_sample(
    photographs: PhotographSet,
    settings: CropSettings,
    scale: int,
    generator: torch.Generator,
    degradation: DegradationSettings | None = None,
) -> tuple[Tensor, Tensor]:
    """One (hr, lr) sample; DataError if a photograph is smaller than the crop."""
    for _ in range(4):
        index = photographs.draw(generator)
        hr, lr = _cut(photographs, index, settings, scale, generator)
        if (hr.mean(0) > NEARLY_BLACK).float().mean() >= settings.min_visible:
            break
    turns = int(torch.randint(8, (), generator=generator)) if settings.flip else 0
    hr = _turn(hr, turns)
    if lr is not None:
        return hr, _turn(lr, turns)  # (3, S, S), (3, S/scale, S/scale)
    hr = quantise(as_another_camera(hr, settings, generator))
    if degradation is not None and degradation.kind == "realistic":
        return hr, _degrade(hr, scale, degradation, generator)
    return hr, bicubic_reduce(hr[None], scale)[0]  # (3, S, S), (3, S/scale, S/scale)


def make_batch(
    photographs: PhotographSet,
    settings: CropSettings,
    scale: int,
    seed: int,
    positions: Sequence[int],
    degradation: DegradationSettings | None = None,
) -> Batch:
    """The samples at `positions` of the endless stream that `seed` defines."""
    streams = [stream_generator(seed, position) for position in positions]
    pairs = [make_sample(photographs, settings, scale, stream, degradation) for stream in streams]
    hr, lr = zip(*pairs, strict=True)
    return Batch(torch.stack(hr), torch.stack(lr), positions)


def _cut(
    photographs: PhotographSet, index: int, settings: CropSettings, scale: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """A crop of side `settings.size` from a rescaled photograph, and its LR partner where there is one."""
    size, hr, lr = settings.size, photographs.hr(index), photographs.lr(index)
    height, width = hr.shape[-2:]
    low, high = math.log(settings.rescale_min), math.log(settings.rescale_max)
    factor = math.exp(low + (high - low) * uniform(generator))
    window = min(round(size / factor), height, width)  # side in the photograph that becomes `size` after rescaling
    if (settings.rescale_min == settings.rescale_max == 1 and window < size) or window < 8:
        raise DataError(f"{photographs[index]} is {width}x{height}, smaller than crop.size {size}; lower crop.size")
    step = 1 if lr is None else scale
    top, left = (
        step * int(torch.randint((side - window) // step + 1, (), generator=generator)) for side in (height, width)
    )
    crop = _unit(hr[:, top : top + window, left : left + window])
    if lr is not None:
        top, left, window = top // scale, left // scale, window // scale
        return crop, _unit(lr[:, top : top + window, left : left + window])
    if window != size:
        crop = F.interpolate(crop[None], (size, size), mode="bicubic", antialias=True, align_corners=False)[0].clamp(
            0, 1
        )
    return crop, None


def _degrade(hr: Tensor, scale: int, settings: DegradationSettings, generator: torch.Generator) -> Tensor:
    """(3, S, S) in [0, 1] -> (3, S/scale, S/scale), by way of the CPU: a camera is no matter of tensors."""
    chance = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    pixels = hr.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    lr = realistic(np.ascontiguousarray(pixels), scale, settings, chance)
    return _unit(torch.from_numpy(lr).permute(2, 0, 1).contiguous()).to(hr.device)


def _unit(pixels: Tensor) -> Tensor:
    return pixels.float() / torch.iinfo(pixels.dtype).max


def _turn(image: Tensor, turns: int) -> Tensor:
    """One of the eight symmetries of the square."""
    image = torch.rot90(image, turns % 4, (-2, -1))
    return image.flip(-1) if turns >= 4 else image
