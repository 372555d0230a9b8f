"""JPEG, through Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from retinashift.imaging.exif import dump_exif, exif_dpi, exif_orientation, load_exif
from retinashift.imaging.jpeg_stream import check_whole
from retinashift.imaging.photograph import ImageError, Photograph, check_size, upright

QUALITY = 95
"""With full-resolution colour (4:4:4). JPEG still loses detail: for results PNG or TIFF is better."""


def decode_jpeg(data: bytes, max_pixels: int) -> Photograph:
    """8-bit grey or RGB; JPEG's own YCbCr becomes RGB.

    Raises:
        ImageError: above the limit, CMYK, truncated; Pillow's own errors for damaged files.
    """
    with _open(data) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(f"JPEG in {picture.mode}; convert it to RGB or grey")
        exif = load_exif(picture.info.get("exif", b"").removeprefix(b"Exif\0\0"))
        orientation = exif_orientation(exif)
        dpi = _jfif_dpi(picture) or exif_dpi(exif)
        icc = picture.info.get("icc_profile")
    pixels = _pixels(data)
    check_whole(data, pixels, _pixels)
    pixels = upright(pixels, orientation)
    return Photograph(pixels, "JPEG", icc, dump_exif(exif), dpi[::-1] if dpi and orientation > 4 else dpi)


def encode_jpeg(photograph: Photograph) -> bytes:
    """Quality 95, 4:4:4.

    Raises:
        ImageError: 16 bit, alpha, a side above 65,500 pixels, or EXIF longer than JPEG holds.
    """
    if photograph.pixels.dtype != np.uint8:
        raise ImageError("JPEG holds 8 bit only and the picture has 16; write PNG or TIFF")
    if photograph.has_alpha:
        raise ImageError("JPEG holds no alpha channel; write PNG or TIFF")
    if max(photograph.pixels.shape[:2]) > 65500:
        raise ImageError("JPEG holds at most 65,500 pixels a side; write PNG or TIFF")
    if photograph.exif and len(photograph.exif) > 65500:
        raise ImageError("the EXIF block is longer than the 64 KiB of JPEG; write PNG or TIFF")
    buffer = io.BytesIO()
    settings: dict[str, object] = {}
    if photograph.dpi:
        settings["dpi"] = tuple(min(round(v), 65535) for v in photograph.dpi)
    if photograph.exif:
        settings["exif"] = b"Exif\0\0" + photograph.exif
    if photograph.icc:
        settings["icc_profile"] = photograph.icc
    if photograph.provenance:
        settings["comment"] = photograph.provenance.encode()
    Image.fromarray(photograph.pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0, **settings)
    return buffer.getvalue()


def provenance_of_jpeg(data: bytes) -> str:
    """The comment, or ""."""
    with _open(data) as picture:
        return bytes(picture.info.get("comment", b"")).decode("latin-1")


def _open(data: bytes) -> JpegImageFile:
    return JpegImageFile(io.BytesIO(data))  # not Image.open, whose own limit cannot be raised for one file


def _pixels(data: bytes) -> np.ndarray:
    with _open(data) as picture:
        return np.array(picture)


def _jfif_dpi(picture: Image.Image) -> tuple[float, float] | None:
    """From the JFIF header; Pillow's own "dpi" invents 72 where EXIF has none."""
    per_inch = {1: 1.0, 2: 2.54}.get(picture.info.get("jfif_unit", 0))
    across, down = picture.info.get("jfif_density", (0, 0))
    return (across * per_inch, down * per_inch) if per_inch and across and down else None
