"""JPEG, through Pillow."""

from __future__ import annotations

import io
import struct
from typing import Literal

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retinashift.imaging.formats.exif import load_exif, note_xmp_orientation, upright_photograph
from retinashift.imaging.formats.jpeg_stream import check_whole, frame_bits, lacks_scans
from retinashift.imaging.photograph import ImageError, Photograph, check_size
from retinashift.imaging.provenance import is_account

QUALITY = 95
"""Default. JPEG loses detail even so: for results PNG or TIFF is better."""
MAX_DPI = 65535
"""Highest resolution that its header holds; EXIF may hold more."""
_ENTRIES = 0xB002  # tag of the list of pictures, 16 bytes each, of which the first four give the kind
_CLASS, _PREVIEW, _VIEW = 0xFF0000, 0x010000, 0x020000
_MAX_BODY = 65_533  # of a segment, whose length of 16 bit counts itself
_EXIF = b"Exif\0\0"
_ICC_PART = _MAX_BODY - 14  # of a profile, behind name, number and count; one byte numbers them: 255 at most


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
    notes: list[str] = []
    with _open(data) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(f"JPEG in {picture.mode}; convert it to RGB or grey")
        info = picture.info
        views, others_of_it = _pictures(info.get("mp"))
        if number is None and views > 1:
            raise ImageError(f"JPEG with {views} pictures (MPO); choose the first with --page 1")
        exif = load_exif(info.get("exif", b"").removeprefix(_EXIF), notes)
        note_xmp_orientation(info.get("xmp", b""), exif, notes)
        dpi = _jfif_dpi(picture)
    comment = bytes(info.get("comment", b"")).decode("latin-1")
    others = {
        "its other pictures, such as a gain map": others_of_it > 0,
        "XMP": "xmp" in info,
        "IPTC": "photoshop" in info,
        "comment": comment and not is_account(comment),
    }
    pixels = _pixels(data)
    check_whole(data, pixels, _pixels)
    if lacks_scans(data):
        notes.append("its last scans are missing, or were never made: it is coarser than it could be")
    return upright_photograph(
        pixels, "JPEG", exif, dpi=dpi, icc=info.get("icc_profile"), provenance=comment, notes=tuple(notes),
        left_out=tuple(name for name, there in others.items() if there),
    )  # fmt: skip


def encode_jpeg(photograph: Photograph, quality: int = QUALITY) -> bytes:
    """JPEG with colour in full resolution (4:4:4).

    Metadata is written here and not by Pillow: below version 13 it overruns its buffer where a long profile meets a
    comment (CVE-2026-96778).

    Args:
        photograph: 8 bit, without alpha.
        quality: 1 to 100.

    Raises:
        ImageError: another quality, or EXIF or a profile longer than JPEG holds.

    Source: ISO/IEC 10918-1, B.2.4.5 and B.2.4.6; Exif 2.32, 4.7.2; ICC.1:2022, B.4.
    """
    if not 1 <= quality <= 100:
        raise ImageError(f"quality is {quality}; 1 to 100 is allowed")
    icc = photograph.icc or b""
    parts = [icc[start : start + _ICC_PART] for start in range(0, len(icc), _ICC_PART)]
    if len(parts) > 255:
        most = 255 * _ICC_PART
        raise ImageError(f"the ICC profile has {len(icc):,} bytes and JPEG holds {most:,}; write PNG or TIFF")
    segments = [_segment(0xE1, _EXIF + photograph.exif, "EXIF")] if photograph.exif else []
    for number, part in enumerate(parts, 1):
        segments.append(_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part, "ICC"))
    if photograph.provenance:
        segments.append(_segment(0xFE, photograph.provenance.encode(), "provenance"))
    density = {}
    if photograph.dpi and max(photograph.dpi) <= MAX_DPI:
        density["dpi"] = tuple(round(v) for v in photograph.dpi)
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(buffer, "JPEG", quality=quality, subsampling=0, **density)
    data = buffer.getvalue()
    start = 4 + int.from_bytes(data[4:6], "big")  # behind the start of image and JFIF's header
    return data[:start] + b"".join(segments) + data[start:]


def _segment(marker: int, body: bytes, name: str) -> bytes:
    if len(body) > _MAX_BODY:
        raise ImageError(f"{name} has {len(body):,} bytes and JPEG holds {_MAX_BODY:,} of it; write PNG or TIFF")
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def provenance_of_jpeg(data: bytes) -> str:
    """The comment, or ""."""
    with _open(data) as picture:
        return bytes(picture.info.get("comment", b"")).decode("latin-1")


def _open(data: bytes) -> JpegImageFile:
    return JpegImageFile(io.BytesIO(data))  # not Image.open, whose own limit cannot be raised for one file


def _pixels(data: bytes) -> np.ndarray:
    with _open(data) as picture:
        return np.array(picture)


def _pictures(index: bytes | None) -> tuple[int, int]:
    """How many views of a scene a file holds (stereo, panorama), and how many further pictures, such as a gain map.

    Previews do not count. Source: CIPA DC-007, the index of a multi-picture file.
    """
    if not index:
        return 1, 0
    try:
        directory = ImageFileDirectory_v2(index[:8])
        file = io.BytesIO(index)
        file.seek(directory.next)
        directory.load(file)
        entries = bytes(directory.get(_ENTRIES, b""))
    except Exception:  # whatever Pillow raises: a damaged index leads to no other picture
        return 1, 0
    order: Literal["little", "big"] = "little" if index[:2] == b"II" else "big"
    kinds = [int.from_bytes(entries[i : i + 4], order) for i in range(0, len(entries), 16)]
    views = sum(kind & _CLASS == _VIEW for kind in kinds)
    return max(1, views), max(0, sum(kind & _CLASS not in (_VIEW, _PREVIEW) for kind in kinds[1:]))


def _jfif_dpi(picture: Image.Image) -> tuple[float, float] | None:
    """From the JFIF header; Pillow's own "dpi" invents 72 where EXIF has none."""
    per_inch = {1: 1.0, 2: 2.54}.get(picture.info.get("jfif_unit", 0))
    across, down = picture.info.get("jfif_density", (0, 0))
    return (across * per_inch, down * per_inch) if per_inch and across and down else None
