"""Photographs that are drawn, archives of them, and uncertainty maps read back."""

import io
import json
import zipfile
from typing import Any

import numpy as np
import tifffile
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


def decode_map(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """The deviations, in shares of full scale, and the account that `encode_map` was given."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        return page.asarray().astype(np.float32) / 65535, json.loads(page.description)
