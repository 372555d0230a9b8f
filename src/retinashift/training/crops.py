"""Choose where a sample is cut from a photograph; cut and rescale a batch at once.

The choices come from numbers of the sample's own stream, on the CPU. The pixels stay on the device: two matrix products
rescale the windows of a batch, which have different sizes, to one size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
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


def cut(pixels: Sequence[Tensor], crops: Sequence[Crop], size: int, largest: int) -> Tensor:
    """The crops of photographs (3, H, W) of whole numbers, (B, 3, size, size) in [0, 1], antialiased bicubic.

    Args:
        largest: the largest window that can be drawn, so that the arithmetic, and each sample, is the same in every
            batch.
    """
    largest = max(size, largest)
    windows = torch.zeros((len(crops), 3, largest, largest), device=pixels[0].device)
    for target, photograph, crop in zip(windows, pixels, crops, strict=True):
        rows, columns = (slice(start, start + crop.window) for start in (crop.top, crop.left))
        target[:, : crop.window, : crop.window] = photograph[:, rows, columns]
    white = torch.tensor([float(torch.iinfo(photograph.dtype).max) for photograph in pixels])
    windows /= white.to(windows.device, non_blocking=True)[:, None, None, None]
    if all(crop.window == size for crop in crops):
        return windows[..., :size, :size]  # (B, 3, S, S)
    sides = torch.tensor([float(crop.window) for crop in crops]).to(windows.device, non_blocking=True)
    resize = bicubic_matrices(sides, size, largest)  # (B, S, L)
    narrow = torch.einsum("bchw,btw->bcht", windows, resize)  # (B, 3, L, S)
    return torch.einsum("bsh,bcht->bcst", resize, narrow).clamp(0, 1)  # (B, 3, S, S)


def bicubic_matrices(windows: Tensor, size: int, largest: int) -> Tensor:
    """Matrices (B, size, largest) that resize the first `windows` (B,) of `largest` pixels to `size`.

    Antialiased bicubic with a = -0.5, as in Pillow and torch: Keys, "Cubic convolution interpolation for digital image
    processing" (1981), eq. 15, widened where the picture is reduced.
    """
    windows = windows[:, None, None].float()
    step = windows / size  # source pixels a result pixel
    centre = (torch.arange(size, device=windows.device)[:, None] + 0.5) * step  # (B, S, 1)
    source = torch.arange(largest, device=windows.device) + 0.5  # (L,)
    weight = _cubic((source - centre) / step.clamp(min=1))  # (B, S, L)
    weight = torch.where(source < windows, weight, 0.0)
    return weight / weight.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
