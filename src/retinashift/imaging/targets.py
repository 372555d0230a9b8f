"""Whether a file can take a result, told before the result is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retinashift.imaging.files import ImageError, Photograph, encode_image, format_of
from retinashift.imaging.formats.jpeg import MAX_SIDE as JPEG_SIDE
from retinashift.imaging.formats.webp import MAX_SIDE as WEBP_SIDE

_LONGEST_SIDE = {"WebP": WEBP_SIDE, "JPEG": JPEG_SIDE, "DICOM": 2**16 - 1}


def check_target(path: str | Path, like: Photograph, scale: int) -> None:
    """Raise what `encode_image` would raise for `like` enlarged so many times; nothing is written.

    Raises:
        ImageError: a suffix that is not written, or a format that cannot hold such pixels, so many of them, their ICC
            profile or their EXIF.
    """
    path = Path(path)
    height, width = (side * scale for side in like.pixels.shape[:2])
    longest = _LONGEST_SIDE.get(format_of(path) or "")
    if longest is not None and max(height, width) > longest:
        raise ImageError(
            f"{path}: the result has {width}x{height} pixels, and such a file holds {longest:,} a side; "
            "give --format tiff or png"
        )
    pixel = np.zeros((1, 1, *like.pixels.shape[2:]), like.pixels.dtype)
    bare = Photograph(like.pixels, icc=like.icc, exif=like.exif, dicom=like.dicom, frame=like.frame)
    encode_image(path, pixel, like=bare)
