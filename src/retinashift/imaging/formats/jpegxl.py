"""JPEG XL, through libjxl; its header is read here, because the decoder allocates whatever size it states."""

from __future__ import annotations

import struct

import imagecodecs

from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_START = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_WIDTHS = (9, 13, 18, 30)  # bits of a length, by a selector of two bits


def decode_jpegxl(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha, upright; 8 bit, or 16 bit.

    Raises:
        ImageError: above the limit, without a header, animated, or of another type; libjxl's own errors for damage.
    """
    bits = _Bits(_codestream_start(data))
    width, height = _read_size(bits)
    check_size(width, height, max_pixels)
    top = 2 ** _read_depth(bits) - 1
    pixels = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    if pixels.dtype.kind != "u" or pixels.itemsize > 2 or {*pixels.shape[:2]} != {width, height}:
        raise ImageError("JPEG XL whose pixels are not as its header says")
    pixels = fill_range(pixels, top)
    return Photograph(pixels, "JPEG XL", left_out=("EXIF, XMP and colour profile, if the JPEG XL has any",))


def _read_depth(bits: _Bits) -> int:
    """Bits a sample. Source: ISO/IEC 18181-1, D.3."""
    if bits.take(1):  # everything by default
        return 8
    if bits.take(1):
        bits.take(3)  # the orientation, which the decoder applies
        if bits.take(1):
            _read_size(bits)  # as it is to be shown
        if bits.take(1):
            raise ImageError("JPEG XL with a preview; save it as PNG or TIFF")
        if bits.take(1):
            raise ImageError("animated JPEG XL; save the picture you want as a file of its own")
    floating, selector = bits.take(1), bits.take(2)
    depth = (8, 10, 12)[selector] if selector < 3 else 1 + bits.take(6)
    if floating or depth > 16:
        raise ImageError("JPEG XL with floating-point or more than 16-bit values; save it as PNG or TIFF")
    return depth


def _codestream_start(data: bytes) -> bytes:
    """The first bytes of the codestream, in a container or bare. Source: ISO/IEC 18181-2, 9."""
    position = 0
    while not data.startswith(_START, position):
        if position + 8 > len(data):
            raise ImageError("JPEG XL without a header")
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"jxlc", b"jxlp"):
            position += 8 if kind == b"jxlc" else 12  # a part begins with its number
            if not data.startswith(_START, position):
                raise ImageError("JPEG XL without a header")
        elif length < 8:
            raise ImageError("JPEG XL without a header")
        else:
            position += length
    return data[position + 2 : position + 34]


class _Bits:
    """Bits of a codestream, the lowest of a byte first; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self.rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value


def _read_size(bits: _Bits) -> tuple[int, int]:
    """Width and height of a size header. Source: ISO/IEC 18181-1, D.2."""
    small = bits.take(1)

    def length() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take(_WIDTHS[bits.take(2)])

    height = length()
    ratio = bits.take(3)
    if ratio == 0:
        return length(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height
