"""BMP and WebP, through Pillow."""

import io
import struct

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.WebPImagePlugin import WebPImageFile

from retinashift.imaging.formats.exif import dump_exif, load_exif, with_metadata_of
from retinashift.imaging.photograph import ImageError, Photograph, check_size

_ANIMATED = 2  # flag of the extended header of WebP

# The plugins are opened themselves and not by Image.open, whose own limit of pixels cannot be raised for one file.


def decode_bmp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; palettes become RGB. Alpha is refused: programs write it without meaning it."""
    with BmpImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("1", "L", "P", "RGB"):
            raise ImageError(f"BMP in {picture.mode}; save it as RGB without alpha")
        across, down = picture.info.get("dpi") or (0, 0)
        pixels = np.array(picture.convert({"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)))
    return Photograph(pixels, "BMP", dpi=(float(across), float(down)) if across > 0 and down > 0 else None)


def decode_webp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit RGB, with or without alpha; the format has no grey and no 16 bit."""
    check_size(*_webp_size(data), max_pixels)
    with WebPImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        return with_metadata_of(picture.info, np.array(picture), "WebP")


def encode_webp(photograph: Photograph) -> bytes:
    """Lossless. Resolution and provenance are EXIF tags, for the format has no other place for them."""
    tags = load_exif(photograph.exif)
    if photograph.provenance:
        tags[Base.ProcessingSoftware] = photograph.provenance
    settings: dict[str, object] = {"lossless": True, "exact": True}  # exact: colours under full transparency too
    if exif := dump_exif(tags, photograph.dpi):
        settings["exif"] = b"Exif\0\0" + exif
    if photograph.icc:
        settings["icc_profile"] = photograph.icc
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(buffer, "WEBP", **settings)
    return buffer.getvalue()


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk: opening the file would already allocate the canvas.

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
