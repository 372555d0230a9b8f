"""Photographs that are drawn, and archives of them."""

import io
import zipfile

import numpy as np
from PIL import Image, ImageDraw


def draw_fundus(seed: int, side: int = 96) -> Image.Image:
    """A reddish disc with dark branching lines: enough of a retina to learn from."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, side - 3, side - 3), fill=(190, 90, 40))
    for _ in range(14):
        points = np.cumsum(rng.normal(0, side / 9, (7, 2)), axis=0) + side / 2
        draw.line([tuple(p) for p in points], fill=(120, 35, 20), width=int(rng.integers(1, 4)))
    return image


def ppm(seed: int = 0, side: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PPM")
    return buffer.getvalue()


def kaggle_zip(path, numbers):
    with zipfile.ZipFile(path, "w") as archive:
        for number in numbers:
            archive.writestr(f"{number}.ppm", ppm(int(number[2:])))
    return path
