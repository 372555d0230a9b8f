"""JPEG, through Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from retinashift.imaging.formats.exif import load_exif, upright_photograph
from retinashift.imaging.formats.jpeg_stream import check_whole, frame_header, lacks_scans
from retinashift.imaging.photograph import ImageError, Photograph, check_size
from retinashift.imaging.provenance import is_account

QUALITY = 95
"""Default. JPEG loses detail even so: for results PNG or TIFF is better."""
MAX_DPI = 65535
"""Highest resolution that its header holds."""
_HOLDS = {"EXIF": 65_533 - 6, "ICC profile": 255 * (65_533 - 14)}  # bytes, in one segment and in 255


def decode_jpeg(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; JPEG's own YCbCr becomes RGB. Of several pictures (MPO) the first is read.

    Raises:
        ImageError: above the limit, CMYK, not 8 bit, or truncated; Pillow's own errors for damaged files.
    """
    header = frame_header(data)
    if header and header[0] != 8:
        raise ImageError(f"{header[0]}-bit JPEG; only 8-bit JPEG is read, convert it to 16-bit PNG or TIFF")
    with _open(data) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(f"JPEG in {picture.mode}; convert it to RGB or grey")
        info = picture.info
    comment = bytes(info.get("comment", b"")).decode("latin-1")
    others = {
        "its other pictures, such as a second view, a gain map or a preview": "mp" in info,
        "IPTC": "photoshop" in info,
        "comment": comment and not is_account(comment),
    }
    pixels = _pixels(data)
    check_whole(data, pixels, _pixels)
    notes = ["its last scans are missing, or were never made: it is coarser than it could be"] * lacks_scans(data)
    return upright_photograph(
        pixels, "JPEG", load_exif(info.get("exif"), notes), xmp=info.get("xmp"), icc=info.get("icc_profile"),
        dpi=_jfif_dpi(info), notes=notes, left_out=[name for name, there in others.items() if there],
    )  # fmt: skip


def encode_jpeg(photograph: Photograph, quality: int = QUALITY) -> bytes:
    """JPEG with colour in full resolution (4:4:4).

    Args:
        photograph: 8 bit, without alpha.
        quality: 1 to 100.

    Raises:
        ImageError: another quality, or EXIF or a profile longer than JPEG holds.
    """
    if not 1 <= quality <= 100:
        raise ImageError(f"quality is {quality}; 1 to 100 is allowed")
    exif, icc = photograph.exif or b"", photograph.icc or b""
    for name, block in (("EXIF", exif), ("ICC profile", icc)):
        if len(block) > _HOLDS[name]:
            raise ImageError(f"{name} of {len(block):,} bytes; JPEG holds {_HOLDS[name]:,}, write PNG or TIFF")
    settings: dict[str, object] = {"exif": b"Exif\0\0" + exif} if exif else {}
    if photograph.dpi and max(photograph.dpi) <= MAX_DPI:
        settings["dpi"] = tuple(round(v) for v in photograph.dpi)
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(
        buffer, "JPEG", quality=quality, subsampling=0, icc_profile=icc, comment=photograph.provenance, **settings
    )
    return buffer.getvalue()


def _open(data: bytes) -> JpegImageFile:
    return JpegImageFile(io.BytesIO(data))  # not Image.open, whose own limit cannot be raised for one file


def _pixels(data: bytes) -> np.ndarray:
    with _open(data) as picture:
        return np.array(picture)


def _jfif_dpi(info: dict[str | tuple[int, int], Any]) -> tuple[float, float] | None:
    """From the JFIF header; Pillow's own "dpi" invents 72 where EXIF has none."""
    per_inch = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))
    across, down = info.get("jfif_density", (0, 0))
    return (across * per_inch, down * per_inch) if per_inch and across and down else None
