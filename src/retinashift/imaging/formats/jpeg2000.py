"""JPEG 2000 files and codestreams, through OpenJPEG."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import imagecodecs

from retinashift.imaging.formats.jpeg_stream import codestream, frame_claims
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_SRGB, _GREY = 16, 17


def decode_jpeg2000(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; up to 8 bit become 8 bit over the full range, up to 16 bit become 16.

    Raises:
        ImageError: above the limit, truncated, signed, more than 16 bit, subsampled, a palette, or in other colours;
            OpenJPEG's own errors for damaged files.

    Source: ISO/IEC 15444-1, A.5.1 and I.5.3.
    """
    coded = codestream(data)
    claims = frame_claims(coded)
    if claims is None:
        raise ImageError("JPEG 2000 without a codestream")
    width, height, components = claims
    check_size(width, height, max_pixels)
    each = coded[42 : 42 + 3 * components]  # of each component its bits less one, 128 more if signed, and two steps
    bits = {1 + value for value in each[::3]}
    if components > 4 or len(bits) != 1 or max(bits) > 16 or {*each[1::3], *each[2::3]} != {1}:
        raise ImageError("JPEG 2000 with more than 4, signed, subsampled or differing components; save it as PNG")
    if not coded.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageError("truncated JPEG 2000: it has no end")
    header = dict(boxes(data)) if data[4:8] == b"jP  " else {}  # a bare stream has none
    if b"pclr" in header:
        raise ImageError("JPEG 2000 with a palette; save it as RGB")
    method, space = header.get(b"colr", b"\1")[0], header.get(b"colr", b"")[3:7]
    if method == 1 and space and int.from_bytes(space, "big") not in (_SRGB, _GREY):
        raise ImageError("JPEG 2000 in other colours than sRGB and grey; save it as PNG or TIFF")
    pixels = fill_range(imagecodecs.jpeg2k_decode(coded, numthreads=1), 2 ** max(bits) - 1)
    icc = header[b"colr"][3:] if method == 2 else None
    return Photograph(pixels, "JPEG 2000", icc, left_out=("XMP or EXIF",) if b"uuid" in header else ())


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each box, and of those in a header box, up to a codestream of JPEG 2000."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c" or 1 < length < 8:
            return
        start, end = position + 8, position + length if length > 1 else len(data)
        if kind == b"jp2h":
            position = start  # its boxes follow
            continue
        yield kind, data[start:end]
        position = end
