"""Marks drawn on photographs: lines, rings, boxes, scribbles, rulers and text, as annotation tools leave them.

Photographs of users carry such marks, those of training sets seldom. They are drawn on the high-resolution crop before
it is reduced, so that the network learns to reconstruct them as it does vessels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SUPERSAMPLING = 2
"""Marks are drawn this many times larger and then averaged, so that their edges are smooth."""
MARKS_MAX = 3
"""Most marks on a crop."""


def draw_marks(image: Tensor, number: float) -> Tensor:
    """The image with 1 to `MARKS_MAX` marks drawn on it.

    Args:
        image: (3, S, S) in [0, 1].
        number: in [0, 1); it decides the marks.
    """
    generator = np.random.default_rng(int(number * 2**53))
    for _ in range(int(generator.integers(1, MARKS_MAX + 1))):
        mask = _mask(image.shape[-1], generator).to(image.device)  # (S, S)
        colour = torch.tensor(_colour(generator), dtype=image.dtype, device=image.device)[:, None, None]
        image = image + mask * (colour - image)
    return image


def _colour(generator: np.random.Generator) -> list[float]:
    """Red, green and blue in [0, 1]: half of the time each 0 or 1, else any."""
    channels = generator.integers(0, 2, 3).astype(float) if generator.random() < 0.5 else generator.random(3)
    return [float(value) for value in channels]


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
    small = mask.reduce(SUPERSAMPLING)
    return torch.from_numpy(np.asarray(small, np.float32) / 255)
