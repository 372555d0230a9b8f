"""WebP, through Pillow; its header is read here, because opening the file would already allocate the canvas."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.WebPImagePlugin import WebPImageFile

from retinashift.imaging.formats.exif import exif_dpi, load_exif, note_xmp_orientation, upright_photograph
from retinashift.imaging.photograph import ImageError, Photograph, check_size

_ANIMATED = 2  # flag of the extended header


def decode_webp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit RGB, with or without alpha; the format has no grey and no 16 bit.

    Raises:
        ImageError: above the limit, animated, or without a header; Pillow's own errors for damaged files.
    """
    check_size(*_read_size(data), max_pixels)
    with WebPImageFile(io.BytesIO(data)) as picture:  # not Image.open, whose own limit cannot be raised for one file
        check_size(*picture.size, max_pixels)
        info, notes = picture.info, list[str]()
        exif = load_exif(info.get("exif", b"").removeprefix(b"Exif\0\0"), notes)
        note_xmp_orientation(info.get("xmp", b""), exif, notes)
        return upright_photograph(
            np.array(picture), "WebP", exif, icc=info.get("icc_profile") or None, provenance=provenance_of_webp(data),
            notes=tuple(notes), left_out=("XMP",) if "xmp" in info else (),
        )  # fmt: skip


def encode_webp(photograph: Photograph) -> bytes:
    """Lossless. Resolution and provenance are EXIF tags, for the format has no other place for them."""
    exif = load_exif(photograph.exif)
    if photograph.dpi and exif_dpi(exif) is None:
        exif[Base.XResolution], exif[Base.YResolution] = photograph.dpi
        exif[Base.ResolutionUnit] = 2  # inch
    if photograph.provenance:
        exif[Base.ProcessingSoftware] = photograph.provenance
    settings: dict[str, object] = {"lossless": True, "exact": True}  # exact: colours under full transparency too
    if len(exif):
        settings["exif"] = exif.tobytes()
    if photograph.icc:
        settings["icc_profile"] = photograph.icc
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(buffer, "WEBP", **settings)
    return buffer.getvalue()


def provenance_of_webp(data: bytes) -> str:
    """The EXIF tag ProcessingSoftware, or ""; found without opening the picture, which would allocate its canvas."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            exif = Image.Exif()
            try:
                exif.load(data[position + 8 : position + 8 + length])
            except Exception:  # Pillow raises whatever a damaged directory leads it to
                return ""
            return str(exif.get(Base.ProcessingSoftware, ""))
        position += 8 + length + length % 2
    return ""


def _read_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        if body[0] & _ANIMATED:
            raise ImageError("animated WebP; save the picture you want as a file of its own")
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ImageError("WebP without a valid header")
