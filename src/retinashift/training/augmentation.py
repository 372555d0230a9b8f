"""What other cameras would have made of a photograph: softer, sharper, of another colour, exposure or aperture.

The photographs of a training set come from few cameras, those of users from many. Each change here is drawn from the
generator of the sample, and only if its setting asks for it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.training.config import CropSettings

EDGE_WIDTHS = (0.7, 4.0)
"""Pixels over which an aperture darkens: from a mask laid on the file to a diaphragm out of focus."""
APERTURE_RADII = (0.7, 6.0)
"""Radius of an aperture, of the side of the crop: from a whole small field to an edge that is nearly straight."""
SURROUND_MAX = 0.1
"""The brightest surround, of the range from black to white."""


def as_another_camera(hr: Tensor, settings: CropSettings, generator: torch.Generator) -> Tensor:
    """The crop (C, S, S) in [0, 1] with the changes that the settings ask for, shaped as before."""
    if settings.blur_sigma_max and uniform(generator) < 0.5:
        hr = _blur(hr, uniform(generator) * settings.blur_sigma_max)
    elif settings.sharpen_max and uniform(generator) < 0.5:
        hr = _sharpen(hr, uniform(generator) * settings.sharpen_max)
    if settings.tint_max and uniform(generator) < 0.5:
        hr = _tint(hr, settings.tint_max, generator)
    if settings.expose_max and uniform(generator) < 0.5:
        hr = _expose(hr, settings.expose_max, generator)
    if settings.aperture_share and uniform(generator) < settings.aperture_share:
        hr = _aperture(hr, generator)
    return hr


def uniform(generator: torch.Generator) -> float:
    """One number in [0, 1)."""
    return float(torch.rand((), generator=generator))


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (radius,) * 4, mode="replicate")  # (3, 1, H+2r, W+2r)
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])[:, 0]


def _sharpen(image: Tensor, strength: float) -> Tensor:
    """Unsharp masking of (C, H, W) in [0, 1]."""
    return (image + strength * (image - _blur(image, 1.0))).clamp(0, 1)


def _tint(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """gain_c * image_c ** gamma_c for each channel c of (C, H, W) in [0, 1]."""
    power, gain = torch.rand((2, image.shape[0], 1, 1), generator=generator).to(image.device)
    gamma = torch.exp((2 * power - 1) * math.log1p(strength))
    return (1 - strength * gain) * image**gamma


def _expose(image: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """gain_c * image_c, white where that is beyond white: a sensor or a film that has had enough of one colour."""
    position = torch.rand((image.shape[0], 1, 1), generator=generator).to(image.device)
    gain = torch.exp((2 * position - 1) * math.log1p(most))
    return (gain * image).clamp(max=1)


def _aperture(image: Tensor, generator: torch.Generator) -> Tensor:
    """The part of (C, S, S) inside a disc whose edge passes through the crop, and a dark surround."""
    side = image.shape[-1]
    y, x, turn, size, width = torch.rand(5, generator=generator).tolist()
    shade = SURROUND_MAX * torch.rand((), generator=generator) * torch.rand((image.shape[0], 1, 1), generator=generator)
    edge = torch.tensor([y, x]) * side  # a point that the edge passes through
    to_middle = torch.atan2(side / 2 - edge[0], side / 2 - edge[1]) + (2 * turn - 1) * math.pi / 3
    radius = side * _between(APERTURE_RADII, size)
    centre = edge + radius * torch.stack([to_middle.sin(), to_middle.cos()])
    grid = torch.arange(side) + 0.5
    distance = torch.hypot(grid[:, None] - centre[0], grid[None, :] - centre[1])  # (S, S)
    visible = ((radius - distance) / _between(EDGE_WIDTHS, width) + 0.5).clamp(0, 1).to(image.device)
    return visible * image + (1 - visible) * shade.to(image.device)


def _between(ends: tuple[float, float], position: float) -> float:
    """Evenly in the logarithm."""
    return ends[0] * (ends[1] / ends[0]) ** position
