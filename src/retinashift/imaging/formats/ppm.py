"""Binary PPM and PGM, plain or gzipped. Read here because Pillow turns 16-bit RGB into 8 bit."""

from __future__ import annotations

import re
import zlib

import numpy as np

from retinashift.imaging.photograph import ImageError, Photograph, check_size

_SPACE = rb"(?:\s|#[^\n]*\n)"
_HEADER = re.compile(rb"P([56])" + 3 * (_SPACE + rb"+(\d{1,9})") + rb"\s")
_COMMENT = re.compile(rb"P[56]\n# ([^\n]*)\n")
_MAX_HEADER = 4096


def decode_ppm(data: bytes, max_pixels: int) -> Photograph:
    """8 or 16 bit (maxval 255 or 65535), grey (P5) or RGB (P6). Gzip is unpacked no further than the header promises.

    Raises:
        ImageError: above the limit, truncated, more than one picture, a header changed to CR LF, plain text (P2, P3),
            bitmap (P1, P4), or another maxval.
    """
    header = _HEADER.match(_unpack(data, _MAX_HEADER))
    if header is None:
        kind = _unpack(data, 2).decode("latin-1")
        if kind in ("P1", "P2", "P3", "P4", "P7"):
            raise ImageError(f"{kind} of the PNM family; only binary PGM (P5) and PPM (P6) are read")
        raise ImageError("PPM without a valid header")
    width, height, maxval = (int(number) for number in header.groups()[1:])
    check_size(width, height, max_pixels)
    if maxval not in (255, 65535):
        raise ImageError(f"PPM with maxval {maxval}; 255 and 65535 are read")
    shape = (height, width) if header[1] == b"5" else (height, width, 3)
    dtype = np.dtype(np.uint8 if maxval == 255 else ">u2")
    length = int(np.prod(shape)) * dtype.itemsize
    if header[0].endswith(b"\r") and header[0].count(b"\r") > 1:  # a line break of two bytes where one is allowed
        raise ImageError("PPM whose header has lines that end in CR LF; it was changed by a program for texts")
    raster = _unpack_whole(data, header.end() + length)[header.end() :]
    if len(raster) < length:
        raise ImageError(f"truncated PPM: {len(raster)} of {length} bytes")
    return Photograph(np.frombuffer(raster, dtype).reshape(shape).astype(dtype.newbyteorder("=")), "PPM")


def encode_ppm(photograph: Photograph) -> bytes:
    """P5 for grey, P6 for RGB. The format has no room for ICC, EXIF and resolution.

    Raises:
        ImageError: alpha.
    """
    if photograph.has_alpha:
        raise ImageError("PPM holds no alpha channel; write PNG or TIFF")
    height, width = photograph.pixels.shape[:2]
    kind, maxval = 5 if photograph.channels == 1 else 6, np.iinfo(photograph.pixels.dtype).max
    dtype = np.uint8 if photograph.pixels.dtype == np.uint8 else ">u2"
    comment = f"# {photograph.provenance}\n" if photograph.provenance else ""
    header = f"P{kind}\n{comment}{width} {height}\n{maxval}\n".encode()
    return header + photograph.pixels.astype(dtype).tobytes()


def provenance_of_ppm(data: bytes) -> str:
    """The comment behind the magic number, or ""."""
    comment = _COMMENT.match(_unpack(data, _MAX_HEADER))
    return comment[1].decode("latin-1") if comment else ""


def _unpack_whole(data: bytes, length: int) -> bytes:
    """`_unpack` of a file that ends there: of gzip, whose sum is compared, too."""
    more = ImageError("PPM with data behind its pixels; save the picture you want as a file of its own")
    if data[:2] != b"\x1f\x8b":
        if len(data) > length:
            raise more
        return data
    packed = zlib.decompressobj(31)
    content = packed.decompress(data, length + 1)
    if len(content) > length or packed.unused_data.strip(b"\0"):  # zeros pad blocks of tapes
        raise more
    if not packed.eof:
        raise ImageError("truncated PPM: gzip without its end")
    return content


def _unpack(data: bytes, limit: int) -> bytes:
    """The first `limit` bytes, unpacked if gzipped."""
    return zlib.decompressobj(31).decompress(data, limit) if data[:2] == b"\x1f\x8b" else data[:limit]
