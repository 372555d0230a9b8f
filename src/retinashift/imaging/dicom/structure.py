"""The structure of a DICOM file, walked before a parser sees it: what it inflates to, how deep it nests, its pixels.

Files as archives leave them are repaired on the way: no preamble, a body that is not coded as its header says, padding
and stray delimiters behind the pixels, a sequence of fragments without its end.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from retinashift.imaging.photograph import ImageError, check_size

MAX_DEPTH = 16
"""Sequences within sequences; the standard's own images need four."""
MAX_ELEMENTS = 200_000
MAX_HEADER = 16 * 2**20
"""Bytes that the header of a deflated object may inflate to."""
DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ROWS, _COLUMNS, _SAMPLES, _BITS, _FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280100, 0x00280008
_PIXEL_DATA = 0x7FE00010
_TRUNCATED = "truncated DICOM: it claims more bytes than the file has"


@dataclass
class Structure:
    """A file taken apart."""

    syntax: str
    header: bytes
    """The elements without the pixels, in implicit or explicit VR."""
    implicit: bool
    little: bool
    pixels: bytes = b""
    """Of native pixels, all frames."""
    fragments: list[bytes] = field(default_factory=list)
    """Of coded pixels, the table of offsets first."""
    pixel_vr: bytes = b"OW"
    has_pixels: bool = False
    notes: list[str] = field(default_factory=list)


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM, with a preamble or with the file meta information at once."""
    return head[128:132] == b"DICM" or (head[:2] == b"\2\0" and head[4:6] in (b"UL", b"OB"))


def read_structure(data: bytes, max_pixels: int) -> Structure:
    """Take a file apart, and refuse what would exhaust a parser.

    Args:
        data: the file.
        max_pixels: limit of rows x columns of a deflated object, whose pixels are inflated no further than its own
            rows, columns and frames need.

    Raises:
        ImageError: no file meta information, a deflate bomb, sequences nested deeper than `MAX_DEPTH`, or an element
            that claims more bytes than the file has.

    Source: DICOM PS3.5, sections 6.2.2, 7.1, 7.5, A.4, A.5; PS3.10, section 7.1.
    """
    syntax, start = _read_meta(data)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if syntax == DEFLATED else None
    if inflater:
        data, start = inflater.decompress(data[start:], MAX_HEADER), 0
    implicit, little = syntax == IMPLICIT, syntax != BIG_ENDIAN
    notes = []
    if not implicit and data[start + 4 : start + 6] not in _LONG | _SHORT and start + 8 <= len(data):
        implicit = True  # PS3.5 7.1.2 and 7.1.3 exclude each other: no VR begins like this
        notes.append("its header has no value representations, though its transfer syntax says so")
    walk = _Walk(data, implicit, "<" if little else ">")
    try:
        end = walk.elements(start)
    except ImageError:
        if inflater is None or not inflater.unconsumed_tail:
            raise
    if inflater and inflater.unconsumed_tail and not walk.pixels:
        raise ImageError(f"deflated DICOM whose header inflates to more than {MAX_HEADER >> 20} MiB")
    found = Structure(syntax, data[start:end], implicit, little, notes=notes)
    if not walk.pixels:
        return found
    kind, position, length = walk.pixels
    found.has_pixels, found.pixel_vr = True, kind
    if inflater:
        more = _inflate_pixels(walk, inflater, len(data) - position, max_pixels)
        data += more
    if length != _UNDEFINED:
        found.pixels, position = data[position : position + length], position + length
        if len(found.pixels) < length:
            raise ImageError("truncated DICOM: its pixels claim more bytes than the file has")
    else:
        found.fragments, position = walk.fragments(position, notes)
    found.header += _behind_pixels(data, position, walk, notes)
    return found


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax and where the data set starts."""
    position, syntax = 132 if data[128:132] == b"DICM" else 0, ""
    while data[position : position + 2] == b"\2\0" and position + 8 <= len(data):
        element, kind, length = struct.unpack_from("<H2sH", data, position + 2)
        position += 8
        if kind in _LONG:
            if position + 4 > len(data):
                break
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if element == 0x0010:
            syntax = data[position : position + length].rstrip(b"\0 ").decode("ascii")
        position += length
    if not syntax:
        raise ImageError("DICOM without a transfer syntax")
    return syntax, position


class _Walk:
    """A walk over the elements of one data set, without recursion."""

    def __init__(self, data: bytes, implicit: bool, order: str) -> None:
        self.data, self.implicit, self.order = data, implicit, order
        self.facts: dict[int, bytes] = {}
        """Values of the elements from which the size of the pixels follows."""
        self.pixels: tuple[bytes, int, int] | None = None
        """Value representation of the pixels, where they start, and their length."""

    def element(self, position: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, value representation, start of the value, and its length, of the element at a position."""
        group, element = struct.unpack_from(self.order + "HH", self.data, position)
        tag, kind = group << 16 | element, self.data[position + 4 : position + 6]
        if group == 0xFFFE or implicit:
            return tag, b"", position + 8, struct.unpack_from(self.order + "I", self.data, position + 4)[0]
        if kind in _LONG:
            if position + 12 > len(self.data):
                raise ImageError(_TRUNCATED)
            return tag, kind, position + 12, struct.unpack_from(self.order + "I", self.data, position + 8)[0]
        return tag, kind, position + 8, struct.unpack_from(self.order + "H", self.data, position + 6)[0]

    def elements(self, position: int) -> int:
        """Walk up to the pixels or the end; returns where the header ends."""
        data, item = self.data, struct.pack(self.order + "HH", 0xFFFE, 0xE000)
        levels: list[tuple[int, bool]] = []  # where open sequences and items end, 0 if a delimiter says; how coded
        implicit = self.implicit
        for _ in range(MAX_ELEMENTS):
            passed = next((i for i, (end, _) in enumerate(levels) if end and position >= end), None)
            if passed is not None:  # a value of defined length ends there, whatever is in it
                position, implicit = levels[passed]
                del levels[passed:]
            if position > len(data):
                raise ImageError(_TRUNCATED)
            if position + 8 > len(data) or (not levels and not any(data[position : position + 8])):
                return position
            tag, kind, start, length = self.element(position, implicit)
            if tag in (_ITEM_END, _SEQUENCE_END):
                if levels and not levels[-1][0]:
                    implicit = levels.pop()[1]
                position = start
            elif tag == _PIXEL_DATA and not levels:
                self.pixels = (kind or b"OW", start, length)
                return position
            elif tag == _ITEM or length == _UNDEFINED or (kind in (b"SQ", b"") and data.startswith(item, start)):
                if length != _UNDEFINED and start + length > len(data) and not levels:
                    raise ImageError(_TRUNCATED)
                levels.append((0 if length == _UNDEFINED else start + length, implicit))
                implicit = implicit or (kind == b"UN" and length == _UNDEFINED)  # coded as implicit inside
                if len(levels) > 2 * MAX_DEPTH:
                    raise ImageError(f"DICOM with sequences nested deeper than {MAX_DEPTH}")
                position = start
            else:
                if not levels and tag in (_ROWS, _COLUMNS, _SAMPLES, _BITS, _FRAMES):
                    self.facts[tag] = data[start : start + length]
                position = start + length
        raise ImageError(f"DICOM with more than {MAX_ELEMENTS:,} elements")

    def fragments(self, position: int, notes: list[str]) -> tuple[list[bytes], int]:
        """The coded pixels that start there, the table of offsets first, and where they end."""
        data, found = self.data, list[bytes]()
        for _ in range(MAX_ELEMENTS):
            rest = data[position : position + 9]
            if len(rest) >= 8 and not any(rest[:8]) and len(found) > 1 and not any(data[position:]):
                notes.append("its coded pixels lack their end; zeros stand in its place")
                return found, len(data)
            if len(rest) < 8:
                raise ImageError(_TRUNCATED)
            tag, _, start, length = self.element(position, True)
            if tag == _SEQUENCE_END:
                return found, start
            if tag != _ITEM:
                raise ImageError("damaged DICOM: its coded pixels are not a sequence of fragments")
            position = start + length
            if position > len(data):
                raise ImageError(_TRUNCATED)
            found.append(data[start:position])
        raise ImageError(f"DICOM with more than {MAX_ELEMENTS:,} fragments")


def _inflate_pixels(walk: _Walk, inflater: zlib._Decompress, have: int, max_pixels: int) -> bytes:
    """The rest of a deflated object's pixels, if they are as many as its header says, and a little behind them."""
    if walk.facts.keys() < {_ROWS, _COLUMNS, _SAMPLES, _BITS} or not walk.pixels:
        raise ImageError("deflated DICOM whose header does not state the size of its pixels")
    rows, columns, samples, bits = (
        int.from_bytes(walk.facts[tag], "little") for tag in (_ROWS, _COLUMNS, _SAMPLES, _BITS)
    )
    check_size(columns, rows, max_pixels)
    frames = int(walk.facts.get(_FRAMES, b"").strip(b" \0") or 1)
    most = rows * columns * samples * -(-bits // 8) * frames
    if walk.pixels[2] > most + most % 2:
        raise ImageError(f"DICOM whose pixels have {walk.pixels[2]:,} bytes; by its header they have {most:,}")
    more = inflater.decompress(inflater.unconsumed_tail, max(1, most + 2**16 - have))
    if inflater.unconsumed_tail:
        raise ImageError(f"deflated DICOM that inflates to more than the {most:,} bytes of its pixels")
    return more


def _behind_pixels(data: bytes, position: int, walk: _Walk, notes: list[str]) -> bytes:
    """The elements behind the pixels, without padding, zeros and delimiters that close nothing."""
    while position + 8 <= len(data) and walk.element(position, walk.implicit)[0] in (_ITEM_END, _SEQUENCE_END):
        position += 8
    try:
        end = _Walk(data, walk.implicit, walk.order).elements(position)
    except ImageError:
        notes.append("bytes behind its pixels are ignored")
        return b""
    return data[position:end]
