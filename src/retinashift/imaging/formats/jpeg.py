"""JPEG, through Pillow."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from retinashift.imaging.formats.exif import photograph_with_info, read_directory
from retinashift.imaging.formats.jpeg_stream import check_whole, frame_bits, lacks_scans
from retinashift.imaging.photograph import ImageError, Photograph, check_size
from retinashift.imaging.provenance import is_account

QUALITY = 95
"""Default. JPEG loses detail even so: for results PNG or TIFF is better."""
MAX_DPI = 65535
"""Highest resolution that its header holds."""
_HOLDS = {"EXIF": 65_533 - 6, "ICC profile": 255 * (65_533 - 14)}  # bytes, in one segment and in 255
_ENTRIES = 0xB002  # tag of the list of pictures, 16 bytes each, of which the first four give the kind
_CLASS, _PREVIEW, _VIEW = 0xFF0000, 0x010000, 0x020000


def decode_jpeg(data: bytes, max_pixels: int, number: int | None = None) -> Photograph:
    """8-bit grey or RGB; JPEG's own YCbCr becomes RGB.

    Args:
        data: the file.
        max_pixels: limit of width x height.
        number: of the picture, where the file holds several (MPO); 1, and None for a file of one only.

    Raises:
        ImageError: above the limit, CMYK, not 8 bit, truncated, several pictures and the first not chosen; Pillow's own
            errors for damaged files.
    """
    if number not in (None, 1):
        raise ImageError(f"page {number} is asked for, but of JPEG the first picture only is read")
    bits = frame_bits(data)
    if bits not in (None, 8):
        raise ImageError(f"{bits}-bit JPEG; only 8-bit JPEG is read, convert it to 16-bit PNG or TIFF")
    with _open(data) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(f"JPEG in {picture.mode}; convert it to RGB or grey")
        info = picture.info
    views, others_of_it = _pictures(info.get("mp"))
    if number is None and views > 1:
        raise ImageError(f"JPEG with {views} pictures (MPO); choose the first with --page 1")
    comment = bytes(info.get("comment", b"")).decode("latin-1")
    others = {
        "its other pictures, such as a gain map": others_of_it > 0,
        "IPTC": "photoshop" in info,
        "comment": comment and not is_account(comment),
    }
    pixels = _pixels(data)
    check_whole(data, pixels, _pixels)
    notes = ["its last scans are missing, or were never made: it is coarser than it could be"] * lacks_scans(data)
    left_out = [name for name, there in others.items() if there]
    return photograph_with_info(pixels, "JPEG", info, dpi=_jfif_dpi(info), notes=notes, left_out=left_out)


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


def _pictures(index: bytes | None) -> tuple[int, int]:
    """How many views of a scene a file holds (stereo, panorama), and how many further pictures, such as a gain map.

    Previews do not count. Source: CIPA DC-007, the index of a multi-picture file.
    """
    try:
        entries = bytes(read_directory(index or b"").get(_ENTRIES, b""))
    except Exception:  # whatever Pillow raises: a damaged index leads to no other picture
        return 1, 0
    order: Literal["little", "big"] = "little" if (index or b"")[:2] == b"II" else "big"
    kinds = [int.from_bytes(entries[i : i + 4], order) for i in range(0, len(entries), 16)]
    views = sum(kind & _CLASS == _VIEW for kind in kinds)
    return max(1, views), max(0, sum(kind & _CLASS not in (_VIEW, _PREVIEW) for kind in kinds[1:]))


def _jfif_dpi(info: dict[str | tuple[int, int], Any]) -> tuple[float, float] | None:
    """From the JFIF header; Pillow's own "dpi" invents 72 where EXIF has none."""
    per_inch = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))
    across, down = info.get("jfif_density", (0, 0))
    return (across * per_inch, down * per_inch) if per_inch and across and down else None
