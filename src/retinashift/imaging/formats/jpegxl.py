"""JPEG XL, through libjxl; its header is read here, because the decoder allocates whatever size it states."""

from __future__ import annotations

from collections.abc import Callable

import imagecodecs

from retinashift.imaging.formats.jpeg2000 import boxes
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_START = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_WIDTHS = (9, 13, 18, 30)  # bits of a length, by a selector of two bits
Take = Callable[[int], int]
"""The next bits of a codestream."""


def decode_jpegxl(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha, upright; 8 bit, or 16 bit.

    Raises:
        ImageError: above the limit, without a header, animated, or of another type; libjxl's own errors for damage.

    Source: ISO/IEC 18181-2, 9 (container).
    """
    parts = () if data.startswith(_START) else boxes(data)
    inside = (body[0 if kind == b"jxlc" else 4 :] for kind, body in parts if kind in (b"jxlc", b"jxlp"))
    start = next(inside, data)  # a part begins with its number
    if not start.startswith(_START):
        raise ImageError("JPEG XL without a header")
    take = _bits_of(start[2:34])
    width, height = _read_size(take)
    check_size(width, height, max_pixels)
    top = 2 ** _read_depth(take) - 1
    pixels = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    if pixels.dtype.kind != "u" or pixels.itemsize > 2 or {*pixels.shape[:2]} != {width, height}:
        raise ImageError("JPEG XL whose pixels are not as its header says")
    pixels = fill_range(pixels, top)
    return Photograph(pixels, "JPEG XL", left_out=("EXIF, XMP and colour profile, if the JPEG XL has any",))


def _read_depth(take: Take) -> int:
    """Bits a sample. Source: ISO/IEC 18181-1, D.3."""
    if take(1):  # everything by default
        return 8
    if take(1):
        take(3)  # the orientation, which the decoder applies
        if take(1):
            _read_size(take)  # as it is to be shown
        if take(1):
            raise ImageError("JPEG XL with a preview; save it as PNG or TIFF")
        if take(1):
            raise ImageError("animated JPEG XL; save the picture you want as a file of its own")
    floating, selector = take(1), take(2)
    depth = (8, 10, 12)[selector] if selector < 3 else 1 + take(6)
    if floating or depth > 16:
        raise ImageError("JPEG XL with floating-point or more than 16-bit values; save it as PNG or TIFF")
    return depth


def _read_size(take: Take) -> tuple[int, int]:
    """Width and height of a size header. Source: ISO/IEC 18181-1, D.2."""
    small = take(1)

    def length() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_WIDTHS[take(2)])

    height = length()
    ratio = take(3)
    if ratio == 0:
        return length(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _bits_of(data: bytes) -> Take:
    """Bits of a codestream, the lowest of a byte first; zeros behind its end."""
    rest = int.from_bytes(data, "little")

    def take(count: int) -> int:
        nonlocal rest
        value = rest & ((1 << count) - 1)
        rest >>= count
        return value

    return take
