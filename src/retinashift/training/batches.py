"""Training samples: cut, rescale, blur, turn and degrade photographs, a batch at a time, on the device they lie on.

Every random choice of a sample comes from one generator seeded by (seed, position). So a sample does not depend on the
batch size, the number of processes, or interruptions. The choices are drawn on the CPU, which saves a GPU from waiting
for them; the pixels stay on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.data.photographs import DataError
from retinashift.diffusion.sampling import stream_generator
from retinashift.imaging.degradation.pipeline import Degradation, degrade_by_seed
from retinashift.training import augmentation
from retinashift.training.pool import PhotographSet
from retinashift.training.settings import CropSettings

Map = Callable[..., Iterable[Any]]
"""`map`, or the `map` of an executor."""
TRIES = 4
"""How often a crop with too little of the eye is drawn again, before the last one is used."""
NUMBERS = 5
"""Numbers in [0, 1) that a try needs: set, photograph, factor, row, column."""


@dataclass(frozen=True)
class Crop:
    """A square of a photograph: `window` pixels a side, which become `CropSettings.size`."""

    photograph: int
    top: int
    left: int
    window: int


def choose_crop(photographs: PhotographSet, settings: CropSettings, scale: int, numbers: Sequence[float]) -> Crop:
    """The crop that `numbers` decide, TRIES * NUMBERS of them in [0, 1).

    If the low-resolution image is given, the crop lies on its grid.

    Raises:
        DataError: the photograph is smaller than the crop.
    """
    for number in range(TRIES):
        crop = _place(photographs, settings, scale, numbers[number * NUMBERS : (number + 1) * NUMBERS])
        if photographs.visible(crop.photograph, crop.top, crop.left, crop.window) >= settings.min_visible:
            break
    return crop  # pyright: ignore[reportPossiblyUnboundVariable]


def check_size(name: str, size: tuple[int, int], settings: CropSettings) -> None:
    """DataError for a photograph of that height and width, if it is smaller than a crop."""
    height, width = size
    if min(size) < settings.size:
        raise DataError(
            f"{name} is {width}x{height}, smaller than crop.size {settings.size}; leave it out, or lower crop.size"
        )


def _place(photographs: PhotographSet, settings: CropSettings, scale: int, numbers: Sequence[float]) -> Crop:
    which_set, which, how_large, how_low, how_right = numbers
    index, size = photographs.pick(which_set, which), settings.size
    height, width = photographs.size(index)
    check_size(photographs[index], (height, width), settings)
    low, high = math.log(settings.rescale_min), math.log(settings.rescale_max)
    factor = math.exp(low + (high - low) * how_large)
    window = min(round(size / factor), height, width)
    step = scale if photographs.has_lr(index) else 1
    top, left = (
        step * int(share * ((side - window) // step + 1)) for share, side in ((how_low, height), (how_right, width))
    )
    return Crop(index, top, left, window)


def cut(pixels: Sequence[Tensor], crops: Sequence[Crop], size: int) -> Tensor:
    """The crops of photographs (3, H, W) of whole numbers, (B, 3, size, size) in [0, 1], antialiased bicubic."""
    images = []
    for photograph, crop in zip(pixels, crops, strict=True):
        rows, columns = (slice(start, start + crop.window) for start in (crop.top, crop.left))
        image = photograph[None, :, rows, columns].float() / torch.iinfo(photograph.dtype).max  # (1, 3, window, window)
        if crop.window != size:
            image = _bicubic(image, (size, size)).clamp(0, 1)
        images.append(image)
    return torch.cat(images)


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
    """Round [0, 1] to the 256 levels of an 8-bit file."""
    return image.mul(255).round().clamp(0, 255).div(255)


@dataclass(frozen=True)
class Batch:
    """`hr` (B, 3, S, S) and `lr` (B, 3, S/scale, S/scale), float32 in [0, 1]."""

    hr: Tensor
    lr: Tensor


def make_batch(
    photographs: PhotographSet,
    settings: CropSettings,
    scale: int,
    seed: int,
    positions: Sequence[int],
    degradation: Degradation | None = None,
    map_cameras: Map = map,
) -> Batch:
    """The samples at `positions` of the endless stream that `seed` defines.

    Args:
        map_cameras: runs a degradation on the CPU, one call a sample; exact ones are computed on tensors instead.

    Raises:
        DataError: a photograph is smaller than the crop.
    """
    streams = [stream_generator(seed, position) for position in positions]
    placing, turning = TRIES * NUMBERS, 1
    count = placing + turning + augmentation.NUMBERS
    numbers = torch.stack([torch.rand(count, generator=stream) for stream in streams])  # (B, count)
    places = [choose_crop(photographs, settings, scale, row) for row in numbers[:, :placing].tolist()]
    turns = (numbers[:, placing] * 8).long() if settings.flip else torch.zeros(len(streams), dtype=torch.long)
    hr = turned(cut([photographs.hr(p.photograph) for p in places], places, settings.size), turns)  # (B, 3, S, S)
    given = [photographs.lr(place.photograph) for place in places]
    partners = [lr for lr in given if lr is not None]
    if partners:
        small = [Crop(p.photograph, p.top // scale, p.left // scale, p.window // scale) for p in places]
        lr = turned(cut(partners, small, settings.size // scale), turns)
        return Batch(hr, lr)
    hr = quantise(augmentation.as_another_camera(hr, settings, numbers[:, placing + turning :]))
    if degradation is not None and not degradation.exact:
        seeds = [int(torch.randint(2**62, (), generator=stream)) for stream in streams]
        return Batch(hr, _degraded(hr, scale, degradation, seeds, map_cameras))
    return Batch(hr, bicubic_reduce(hr, scale))  # (B, 3, S, S), (B, 3, S/scale, S/scale)


def _degraded(hr: Tensor, scale: int, degradation: Degradation, seeds: list[int], map_cameras: Map) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> (B, 3, S/scale, S/scale), on the CPU, where degradations compute."""
    pixels = hr.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    count = len(seeds)
    small = list(map_cameras(degrade_by_seed, pixels, [scale] * count, [degradation] * count, seeds))
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous().to(hr.device).float() / 255


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each of (B, C, S, S) under one of the eight symmetries of the square, `turns` (B,) from 0 to 7."""
    bits = turns[:, None].bitwise_and(torch.tensor([1, 2, 4])).bool()  # (B, 3)
    bits = bits.to(images.device, non_blocking=True)
    across, down, over = (bits[:, n, None, None, None] for n in range(3))
    images = torch.where(across, images.flip(-1), images)
    images = torch.where(down, images.flip(-2), images)
    return torch.where(over, images.transpose(-1, -2), images)
