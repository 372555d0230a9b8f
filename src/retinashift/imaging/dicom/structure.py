"""The structure of a DICOM file: what it inflates to, its header as pydicom reads it, and its pixels, still coded.

Files as archives leave them are repaired on the way: no preamble, a body that is not coded as its header says, padding
and stray delimiters behind the pixels, a sequence of fragments without its end.
"""

import io
import itertools
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retinashift.imaging.photograph import ImageError, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_ELEMENTS = 50_000
MAX_HEADER = 64 * 2**20  # bytes of the elements in front of the pixels
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_VR = re.compile(b"[A-Z]{2}")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, _PIXEL_DATA = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_TRUNCATED = "truncated DICOM: it claims more bytes than the file has"


@dataclass
class Structure:
    """A file taken apart."""

    syntax: str
    header: "Dataset"
    """The elements without the pixels, not yet decoded."""
    pixels: bytes = b""
    """Of native pixels, all frames."""
    fragments: list[bytes] = field(default_factory=list)
    """Of coded pixels, the table of offsets first."""
    pixel_vr: bytes = b""
    """Their value representation; empty where there are no pixels."""
    notes: list[str] = field(default_factory=list)


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM, with a preamble or with the file meta information at once."""
    return head[128:132] == b"DICM" or (head[:2] == b"\2\0" and head[4:6] in (b"UL", b"OB"))


def read_structure(data: bytes, max_pixels: int) -> Structure:
    """Take a file apart, and refuse what would exhaust a parser: `MAX_ELEMENTS` and `MAX_HEADER` are the limits.

    The pixels of a deflated object are inflated no further than its own rows, columns and frames need.

    Source: DICOM PS3.5, sections 6.2.2, 7.1, 7.5, A.4, A.5; PS3.10, section 7.1.
    """
    syntax, start = _read_meta(data)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if syntax == DEFLATED else None
    if inflater:
        data, start = inflater.decompress(data[start:], MAX_HEADER + 1), 0
    implicit, little = syntax == IMPLICIT, syntax != BIG_ENDIAN
    notes = []
    if not implicit and start + 8 <= len(data) and not _VR.match(data, start + 4):
        implicit = True  # PS3.5 7.1.2 and 7.1.3 exclude each other: no VR begins like this
        notes.append("its header has no value representations, though its transfer syntax says so")
    reader = _Reader(data, implicit, little)
    header, position = reader.elements(start)
    found = Structure(syntax, header, notes=notes)
    if reader.tag(position) != _PIXEL_DATA:
        return found
    found.pixel_vr = b"OW" if implicit else data[position + 4 : position + 6]
    position += 8 if implicit else 12
    if position > len(data):
        raise ImageError(_TRUNCATED)
    (length,) = struct.unpack_from(reader.order + "I", data, position - 4)
    if inflater:
        data += _inflate_pixels(header, inflater, length, len(data) - position, max_pixels)
        reader = _Reader(data, implicit, little)
    if length != _UNDEFINED:
        found.pixels, position = data[position : position + length], position + length
        if len(found.pixels) < length:
            raise ImageError(_TRUNCATED)
    else:
        found.fragments, position = reader.fragments(position, notes)
    while reader.tag(position) in (_ITEM_END, _SEQUENCE_END):  # stray ones, which close nothing
        position += 8
    try:
        if any(data[position:]):
            header.update(dict(reader.elements(position)[0].items()))
    except Exception:  # whatever pydicom raises
        notes.append("bytes behind its pixels are ignored")
    return found


def _read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax and where the data set starts."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, kind, length: tag >> 16 != 2)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise ImageError("DICOM without a transfer syntax")
    return syntax, file.tell()


class _Reader:
    """Reads the elements of one data set, and the fragments of its pixels."""

    def __init__(self, data: bytes, implicit: bool, little: bool) -> None:
        self.data, self.implicit, self.little = data, implicit, little
        self.order = "<" if little else ">"

    def tag(self, position: int) -> int | None:
        """Of the element at a position; None at the end of the data."""
        if position + 8 > len(self.data):
            return None
        group, element = struct.unpack_from(self.order + "HH", self.data, position)
        return int(group << 16 | element)

    def elements(self, position: int) -> "tuple[Dataset, int]":
        """The elements up to the pixels or the end, not yet decoded, and where they end."""
        from pydicom import Dataset
        from pydicom.dataelem import RawDataElement
        from pydicom.filereader import read_dataset

        numbers = itertools.count(1)

        def stop(tag: int, kind: str | None, length: int) -> bool:
            if next(numbers) > MAX_ELEMENTS:
                raise ImageError(f"DICOM with more than {MAX_ELEMENTS:,} elements")
            return tag == _PIXEL_DATA

        start, found = position, Dataset()
        file = io.BytesIO(self.data[start : start + MAX_HEADER])
        while self.tag(position) not in (None, _PIXEL_DATA):
            part = read_dataset(file, self.implicit, self.little, stop_when=stop)  # up to a stray delimiter, if any
            found.update(dict(part.items()))
            position = start + file.tell()
            if position - start == MAX_HEADER < len(self.data) - start:
                raise ImageError(f"DICOM with more than {MAX_HEADER >> 20} MiB in front of its pixels")
        for element in dict(found.items()).values():
            if isinstance(element, RawDataElement) and len(element.value or b"") < element.length != _UNDEFINED:
                raise ImageError(_TRUNCATED)
        return found, position

    def fragments(self, position: int, notes: list[str]) -> tuple[list[bytes], int]:
        """The coded pixels that start there, the table of offsets first, and where they end."""
        data, found = self.data, list[bytes]()
        while (tag := self.tag(position)) == _ITEM and len(found) < MAX_ELEMENTS:
            start = position + 8
            position = start + struct.unpack_from(self.order + "I", data, position + 4)[0]
            if position > len(data):
                raise ImageError(_TRUNCATED)
            found.append(data[start:position])
        if tag == _SEQUENCE_END:
            return found, position + 8
        if tag == 0 and len(found) > 1 and not any(data[position:]):
            notes.append("its coded pixels lack their end; zeros stand in its place")
            return found, len(data)
        raise ImageError(_TRUNCATED if tag is None else "damaged DICOM: its coded pixels are not a row of fragments")


def _inflate_pixels(header: "Dataset", inflater: "zlib._Decompress", length: int, have: int, max_pixels: int) -> bytes:
    """The rest of a deflated object's pixels, if they are as many as its header says, and a little behind them."""
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    rows, columns, samples, bits = (int(header.get(name) or 0) for name in names)
    check_size(columns, rows, max_pixels)
    most = rows * columns * samples * -(-bits // 8) * int(header.get("NumberOfFrames") or 1)
    if length > most + most % 2:
        raise ImageError(f"DICOM whose pixels have {length:,} bytes; by its header they have {most:,}")
    more = inflater.decompress(inflater.unconsumed_tail, max(1, most + 2**16 - have))
    if inflater.unconsumed_tail:
        raise ImageError(f"deflated DICOM that inflates to more than the {most:,} bytes of its pixels")
    return more
