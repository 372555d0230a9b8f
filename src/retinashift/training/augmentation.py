"""Augmentation: crops as other cameras would show them, softer, sharper, of another colour, exposure or aperture.

The photographs of a training set come from few cameras, those of users from many, and some carry lines, rings and text
of annotation tools, which are drawn here before the crop is reduced. Numbers of the sample's own stream decide each
change, which is made only if its setting is not 0.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from retinashift.training.settings import CropSettings

NUMBERS = 26  # in [0, 1), that the changes of a sample need
EDGE_WIDTHS = (0.7, 4.0)  # pixels over which an aperture darkens: from a mask on the file to a diaphragm out of focus
APERTURE_RADII = (0.7, 6.0)  # in sides of the crop: from a whole small field to a nearly straight edge
SURROUND_MAX = 0.1  # brightness of the brightest surround, from 0 to 1
SUPERSAMPLING = 2  # marks are drawn this many times larger and then averaged, so that their edges are smooth
MARKS_MAX = 3  # on a crop


def as_another_camera(hr: Tensor, settings: CropSettings, numbers: Tensor) -> Tensor:
    """The crops (B, 3, S, S) in [0, 1] with the changes of the settings, same shape.

    Args:
        numbers: (B, NUMBERS) in [0, 1), on the CPU; which of them decides what does not depend on the settings.
    """
    return torch.stack([_changed(image, settings, row) for image, row in zip(hr, numbers.tolist(), strict=True)])


def _changed(image: Tensor, settings: CropSettings, numbers: list[float]) -> Tensor:
    """One crop (3, S, S)."""
    softer, sharper, tint, expose, aperture, strength = numbers[:6]
    power, darker, gain, edge, (marked, drawing) = (
        numbers[6:9], numbers[9:12], numbers[12:15], numbers[15:24], numbers[24:]
    )  # fmt: skip
    if settings.blur_sigma_max and softer < 0.5:
        image = _blur(image, strength * settings.blur_sigma_max)
    elif settings.sharpen_max and sharper < 0.5:
        image = (image + strength * settings.sharpen_max * (image - _blur(image, 1.0))).clamp(0, 1)
    if settings.tint_max and tint < 0.5:
        shade = _colours([1 - settings.tint_max * number for number in darker], image)
        image = shade * image ** _factors(settings.tint_max, power, image)
    if settings.expose_max and expose < 0.5:  # a sensor or film saturated in one colour
        image = (_factors(settings.expose_max, gain, image) * image).clamp(max=1)
    if aperture < settings.aperture_share:
        image = _aperture(image, edge)
    return draw_marks(image, drawing) if marked < settings.marks_share else image


def _blur(image: Tensor, sigma: float) -> Tensor:
    """(3, H, W) by a Gaussian, in pixels."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]  # (1, 1, 1, 2r + 1)
    padded = F.pad(image[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(-1, -2))[:, 0]


def _aperture(image: Tensor, numbers: Sequence[float]) -> Tensor:
    """(3, S, S) with a dark surround outside a disc whose edge passes through the crop; nine numbers in [0, 1)."""
    side = image.shape[-1]
    y, x, turn, size, width, dark, *tint = numbers
    row, column = y * side, x * side  # a point that the edge passes through
    to_middle = math.atan2(side / 2 - row, side / 2 - column) + (2 * turn - 1) * math.pi / 3
    radius = side * _between(APERTURE_RADII, size)
    row, column = row + radius * math.sin(to_middle), column + radius * math.cos(to_middle)  # the centre
    grid = torch.arange(side, device=image.device) + 0.5
    distance = torch.hypot(grid[:, None] - row, grid - column)  # (S, S)
    visible = ((radius - distance) / _between(EDGE_WIDTHS, width) + 0.5).clamp(0, 1)
    shade = _colours([SURROUND_MAX * dark * number for number in tint], image)
    return visible * image + (1 - visible) * shade


def _between(ends: tuple[float, float], position: float) -> float:
    """Interpolated in the logarithm; `position` in [0, 1]."""
    return float(ends[0] * (ends[1] / ends[0]) ** position)


def _factors(most: float, numbers: Sequence[float], image: Tensor) -> Tensor:
    """Of each colour, from 1 / (1 + most) to 1 + most."""
    return _colours([(1 + most) ** (2 * number - 1) for number in numbers], image)


def _colours(values: Sequence[float], image: Tensor) -> Tensor:
    """One value for each colour, (3, 1, 1) beside the image."""
    return torch.tensor(values, device=image.device)[:, None, None]


def draw_marks(image: Tensor, number: float) -> Tensor:
    """The image, (3, S, S) in [0, 1], with 1 to `MARKS_MAX` marks drawn on it; `number`, in [0, 1), decides them."""
    generator = np.random.default_rng(int(number * 2**53))
    for _ in range(int(generator.integers(1, MARKS_MAX + 1))):
        mask = _mask(image.shape[-1], generator).to(image.device)  # (S, S)
        pure = generator.random() < 0.5  # red, green and blue are each 0 or 1
        colour = generator.integers(0, 2, 3).astype(float) if pure else generator.random(3)
        image = image + mask * (_colours(colour.tolist(), image) - image)
    return image


def _mask(side: int, generator: np.random.Generator) -> Tensor:
    """The share of each pixel that one mark covers, (S, S) in [0, 1]."""
    large = side * SUPERSAMPLING
    mask = Image.new("L", (large, large))
    canvas = ImageDraw.Draw(mask)
    width = max(1, round(SUPERSAMPLING * math.exp(generator.uniform(math.log(0.7), math.log(8)))))
    (x, y), (u, v) = generator.uniform(-0.1, 1.1, (2, 2)) * large  # a mark may begin outside the crop
    match int(generator.integers(6)):
        case 0:
            canvas.line([(x, y), (u, v)], fill=255, width=width)
        case 1:
            radius_x = generator.uniform(0.03, 0.6) * large
            radius_y = radius_x * generator.uniform(0.7, 1.4)
            canvas.ellipse([x - radius_x, y - radius_y, x + radius_x, y + radius_y], outline=255, width=width)
        case 2:
            canvas.rectangle([min(x, u), min(y, v), max(x, u), max(y, v)], outline=255, width=width)
        case 3:
            steps = generator.normal(0, 0.12 * large, (int(generator.integers(4, 12)), 2))
            points = np.array([x, y]) + np.cumsum(steps, axis=0)
            canvas.line([tuple(point) for point in points.tolist()], fill=255, width=width, joint="curve")
        case 4:
            count, length = int(generator.integers(4, 20)), generator.uniform(4, 14) * SUPERSAMPLING
            canvas.line([(x, y), (u, y)], fill=255, width=width)
            for tick in np.linspace(x, u, count):
                canvas.line([(tick, y), (tick, y - length)], fill=255, width=width)
        case _:
            letters = [chr(int(code)) for code in generator.integers(33, 127, int(generator.integers(1, 12)))]
            size = generator.uniform(7, 40) * SUPERSAMPLING
            canvas.text((x, y), "".join(letters), fill=255, font=ImageFont.load_default(size))
    return torch.from_numpy(np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255)
