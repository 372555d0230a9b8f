"""What a DICOM file claims, looked at before a parser sees it: how much it inflates to, and how deep it nests."""

from __future__ import annotations

import struct
import zlib

from retinashift.imaging.photograph import ImageError

MAX_DEPTH = 16
"""Sequences within sequences; the standard's own images need four."""
MAX_ELEMENTS = 200_000
DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010


def check_structure(data: bytes, max_bytes: int) -> str:
    """Refuse what would exhaust a parser.

    Args:
        data: the file, with preamble.
        max_bytes: that a deflated data set may inflate to.

    Returns:
        The transfer syntax.

    Raises:
        ImageError: no file meta information, a deflate bomb, sequences nested deeper than `MAX_DEPTH`, or pixels that
            end before they should.

    Source: DICOM PS3.5, sections 7.1, 7.5, A.5; PS3.10, section 7.1.
    """
    syntax, start = _read_meta(data)
    if syntax == DEFLATED:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], max_bytes + 1)
        if len(inflated) > max_bytes:
            raise ImageError(f"deflated DICOM that inflates to more than {max_bytes:,} bytes")
        data, start = inflated, 0
    _check_nesting(data, start, syntax != _IMPLICIT, ">" if syntax == _BIG_ENDIAN else "<")
    return syntax


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax and where the data set starts."""
    position, syntax = 132, ""
    while data[position : position + 2] == b"\2\0" and position + 8 <= len(data):
        element, kind, length = struct.unpack_from("<H2sH", data, position + 2)
        position += 8
        if kind in _LONG:
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if element == 0x0010:
            syntax = data[position : position + length].rstrip(b"\0 ").decode("ascii")
        position += length
    if not syntax:
        raise ImageError("DICOM without a transfer syntax")
    return syntax, position


def _check_nesting(data: bytes, position: int, explicit: bool, order: str) -> None:
    """Walk over the elements up to the pixels, without recursion."""
    item, tag_form = struct.pack(order + "HH", 0xFFFE, 0xE000), order + "HH"
    levels: list[tuple[int, bool]] = []  # where each open sequence or item ends, 0 if a delimiter says; how it is coded
    for _ in range(MAX_ELEMENTS):
        while levels and levels[-1][0] and position >= levels[-1][0]:
            explicit = levels.pop()[1]
        if position > len(data):
            raise ImageError("truncated DICOM: its header claims more bytes than the file has")
        if position + 8 > len(data):
            return
        group, element = struct.unpack_from(tag_form, data, position)
        kind = data[position + 4 : position + 6]
        if group == 0xFFFE or not explicit:
            (length,) = struct.unpack_from(order + "I", data, position + 4)
            position += 8
        elif kind in _LONG:
            if position + 12 > len(data):
                return
            (length,) = struct.unpack_from(order + "I", data, position + 8)
            position += 12
        else:
            (length,) = struct.unpack_from(order + "H", data, position + 6)
            position += 8
        if group == 0xFFFE and element != 0xE000:  # a delimiter
            if levels and not levels[-1][0]:
                explicit = levels.pop()[1]
        elif (group << 16 | element) == _PIXEL_DATA and not levels:
            _check_pixels(data, position, length, order)
            return
        elif group == 0xFFFE or length == _UNDEFINED or data.startswith(item, position):
            levels.append((0 if length == _UNDEFINED else position + length, explicit))
            explicit = explicit and not (kind == b"UN" and length == _UNDEFINED)  # coded as implicit inside
            if len(levels) > 2 * MAX_DEPTH:
                raise ImageError(f"DICOM with sequences nested deeper than {MAX_DEPTH}")
        else:
            position += length
    raise ImageError(f"DICOM with more than {MAX_ELEMENTS:,} elements")


def _check_pixels(data: bytes, position: int, length: int, order: str) -> None:
    """ImageError unless the pixels end where they say: a parser would drop them, and with them the whole object."""
    truncated = ImageError("truncated DICOM: its pixels claim more bytes than the file has")
    if length != _UNDEFINED:
        if position + length > len(data):
            raise truncated
        return
    for _ in range(MAX_ELEMENTS):
        if position + 8 > len(data):
            raise truncated
        group, element, length = struct.unpack_from(order + "HHI", data, position)
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000):
            raise ImageError("damaged DICOM: its coded pixels are not a sequence of fragments")
        position += 8 + length
    raise ImageError(f"DICOM with more than {MAX_ELEMENTS:,} fragments")
