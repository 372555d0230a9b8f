"""BMP, read through Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from retinashift.imaging.photograph import ImageError, Photograph, check_size


def decode_bmp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; bitmaps become black and white, palettes become RGB.

    Raises:
        ImageError: above the limit, truncated, or with alpha, which programs write without meaning it.
    """
    with BmpImageFile(io.BytesIO(data)) as picture:  # not Image.open, whose own limit cannot be raised for one file
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("1", "L", "P", "RGB"):
            raise ImageError(f"BMP in {picture.mode}; save it as RGB without alpha")
        across, down = picture.info.get("dpi") or (0, 0)
        pixels = np.array(picture.convert({"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)))
    return Photograph(pixels, "BMP", dpi=(float(across), float(down)) if across > 0 and down > 0 else None)
