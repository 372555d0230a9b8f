"""Choose where a sample is cut from a photograph, cut it, and rescale it.

The choices come from numbers of the sample's own stream, on the CPU. The pixels stay on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.data.photographs import DataError
from retinashift.training.pool import PhotographSet
from retinashift.training.settings import CropSettings

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
            image = F.interpolate(image, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        images.append(image)
    return torch.cat(images)
