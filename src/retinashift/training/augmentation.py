"""Augmentation: crops as other cameras would show them, softer, sharper, of another colour, exposure or aperture.

The photographs of a training set come from few cameras, those of users from many. Numbers of the sample's own stream
decide each change, which is made only if its setting is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.training.marks import draw_marks
from retinashift.training.settings import CropSettings

EDGE_WIDTHS = (0.7, 4.0)
"""Pixels over which an aperture darkens: from a mask drawn on the file to a diaphragm out of focus."""
APERTURE_RADII = (0.7, 6.0)
"""Radius of an aperture, in sides of the crop: from a whole small field to a nearly straight edge."""
SURROUND_MAX = 0.1
"""Brightness of the brightest surround, from 0 to 1."""
NUMBERS = 26
"""Numbers in [0, 1) that the changes of a sample need."""


def as_another_camera(hr: Tensor, settings: CropSettings, numbers: Tensor) -> Tensor:
    """The crops (B, 3, S, S) in [0, 1] with the changes of the settings, same shape.

    Args:
        numbers: (B, NUMBERS) in [0, 1), on the CPU; which of them decides what does not depend on the settings.
    """
    softer, sharper, tint, expose, aperture = numbers[:, :5].unbind(1)  # (B,) each
    marked, drawing = numbers[:, 24:26].unbind(1)
    strength, colours, edge = numbers[:, 5], numbers[:, 6:15].unflatten(1, (3, 3)), numbers[:, 15:24]
    blurred = softer < (0.5 if settings.blur_sigma_max else 0)
    changes: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = [
        (blurred, lambda some, n: _blur(some, strength[n] * settings.blur_sigma_max)),
        (~blurred & (sharper < 0.5) & (settings.sharpen_max > 0),
         lambda some, n: _sharpen(some, strength[n] * settings.sharpen_max)),
        ((tint < 0.5) & (settings.tint_max > 0), lambda some, n: _tint(some, settings.tint_max, colours[n, :2])),
        ((expose < 0.5) & (settings.expose_max > 0), lambda some, n: _expose(some, settings.expose_max, colours[n, 2])),
        (aperture < settings.aperture_share, lambda some, n: _aperture(some, edge[n])),
        (marked < settings.marks_share, lambda some, n: draw_marks(some, drawing[n])),
    ]  # fmt: skip
    for chosen, change in changes:
        rows = chosen.nonzero().flatten()
        if len(rows):
            there = _beside(rows, hr)
            hr = hr.index_copy(0, there, change(hr[there], rows))
    return hr


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Each of (B, 3, H, W) by a Gaussian of its own `sigma` (B,), in pixels."""
    radius = max(1, math.ceil(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None].clamp(min=1e-3)) ** 2)  # (B, 2r + 1)
    kernel = _beside(kernel / kernel.sum(1, keepdim=True), images)
    batch, channels, height, width = images.shape
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None]  # (B * 3, 1, 1, 2r + 1)
    padded = F.pad(images, (radius,) * 4, mode="replicate").reshape(1, batch * channels, *(
        side + 2 * radius for side in (height, width)
    ))  # fmt: skip
    narrow = F.conv2d(padded, kernel, groups=batch * channels)
    return F.conv2d(narrow, kernel.transpose(-1, -2), groups=batch * channels).view_as(images)


def _sharpen(images: Tensor, strength: Tensor) -> Tensor:
    """Unsharp masking of (B, 3, H, W) in [0, 1], by `strength` (B,)."""
    detail = images - _blur(images, torch.ones_like(strength))
    return (images + _for_pixels(strength, images) * detail).clamp(0, 1)


def _tint(images: Tensor, strength: float, numbers: Tensor) -> Tensor:
    """gain_c * image_c ** gamma_c for each channel c of (B, 3, H, W) in [0, 1]; numbers: (B, 2, 3)."""
    power, gain = numbers.unbind(1)
    gamma = torch.exp((2 * power - 1) * math.log1p(strength))
    return _for_pixels(1 - strength * gain, images) * images ** _for_pixels(gamma, images)


def _expose(images: Tensor, most: float, numbers: Tensor) -> Tensor:
    """gain_c * image_c, clipped at white: a sensor or film saturated in one colour."""
    gain = torch.exp((2 * numbers - 1) * math.log1p(most))  # (B, 3)
    return (_for_pixels(gain, images) * images).clamp(max=1)


def _aperture(images: Tensor, numbers: Tensor) -> Tensor:
    """(B, 3, S, S) with a dark surround outside a disc whose edge passes through the crop.

    Args:
        numbers: (B, 9) in [0, 1).
    """
    side = images.shape[-1]
    y, x, turn, size, width, dark = numbers[:, :6].unbind(1)  # (B,) each
    shade = SURROUND_MAX * dark[:, None] * numbers[:, 6:9]  # (B, 3)
    edge = torch.stack([y, x]) * side  # a point that the edge passes through
    to_middle = torch.atan2(side / 2 - edge[0], side / 2 - edge[1]) + (2 * turn - 1) * math.pi / 3
    radius = side * _between(APERTURE_RADII, size)
    centre = edge + radius * torch.stack([to_middle.sin(), to_middle.cos()])  # (2, B)
    row, column, radius, softness = (
        _for_pixels(value, images) for value in (*centre, radius, _between(EDGE_WIDTHS, width))
    )
    grid = torch.arange(side, device=images.device) + 0.5
    distance = torch.hypot(grid[:, None] - row, grid - column)  # (B, 1, S, S)
    visible = ((radius - distance) / softness + 0.5).clamp(0, 1)
    return visible * images + (1 - visible) * _for_pixels(shade, images)


def _between(ends: tuple[float, float], position: Tensor) -> Tensor:
    """Interpolated in the logarithm; `position` in [0, 1]."""
    return ends[0] * (ends[1] / ends[0]) ** position


def _for_pixels(values: Tensor, images: Tensor) -> Tensor:
    """(B,) or (B, C) -> (B, 1 or C, 1, 1) beside the images."""
    return _beside(values.reshape(len(values), -1, 1, 1), images)


def _beside(values: Tensor, images: Tensor) -> Tensor:
    """Copied to the device of the images, without waiting for it."""
    return values.to(images.device, non_blocking=True)
