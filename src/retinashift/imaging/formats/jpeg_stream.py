"""What JPEG streams claim before they are decoded, and whether their pixels are complete.

A decoder that runs out of data invents the rest, and libjpeg's warning does not reach Python. Therefore a second copy
is decoded, with meaningless bytes behind each scan. A decoder reads no more bits than a complete scan has, so only a
scan that was cut short changes.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from retinashift.imaging.photograph import ImageError

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_START = b"\xff\xd8"
_SCAN, _END = 0xDA, 0xD9
_PROGRESSIVE, _NOTHING_YET = 0xC2, 16
_WITHOUT_BODY = {0x01, *range(0xD0, 0xD9)}
_FILLER = bytes((167 * i + 13) % 255 for i in range(255))
"""Never 0xff, and no regular pattern, which could decode to nothing, as zeros do."""
MAX_SCANS = 1000
"""Of one picture; encoders write about ten. Each is a pass over the whole picture."""
_BAND = 512  # rows compared at a time


def frame_claims(coded: bytes) -> tuple[int, int, int] | None:
    """Width, height and number of components in the header of a JPEG, JPEG-LS or JPEG 2000 stream; None without one.

    Source: ISO/IEC 10918-1, B.2.2; ISO/IEC 14495-1, C.2.2; ISO/IEC 15444-1, A.5.1.
    """
    if not coded.startswith(_START):
        coded = codestream(coded)
        if len(coded) < 42:
            return None
        width, height, left, top = struct.unpack_from(">4I", coded, 8)
        return width - left, height - top, struct.unpack_from(">H", coded, 40)[0]
    if header := frame_header(coded):
        _, height, width, components = header
        return width, height, components
    return None


def frame_header(coded: bytes) -> tuple[int, ...] | None:
    """Bits a sample, height, width and components in the header of a JPEG or JPEG-LS stream; None without a header."""
    for marker, start, _ in _segments(coded):
        if marker in _FRAME_HEADERS and start + 8 <= len(coded):
            return struct.unpack_from(">BHHB", coded, start + 2)
    return None


def codestream(coded: bytes) -> bytes:
    """A JPEG 2000 stream without the boxes that may lie around it; nothing if none is found."""
    start = coded.find(b"\xff\x4f\xff\x51", 0, 4096)
    return coded[start:] if start >= 0 else b""


def check_whole(coded: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray]) -> None:
    """Refuse a JPEG stream, lossy or lossless, of which part is missing, even if its end marker was put back.

    Arithmetic coding is not checked: its scans may leave out zeros at their end. For whole scans that are missing from
    a progressive stream see `lacks_scans`.

    Args:
        coded: from the first marker on; bytes behind the end of the picture make no difference.
        pixels: what `decode(coded)` gave.
        decode: from a stream to pixels.

    Raises:
        ImageError: truncated, or of more than `MAX_SCANS` scans.
    """
    parts, last, marker = [], 0, None
    for marker, start, end in _segments(coded):
        if marker in _ARITHMETIC:
            return
        if marker == _SCAN:
            # where scans have restart markers, only the next in turn leads a decoder into the filler behind it
            restarts = deque(_RESTART.finditer(coded, start, end), maxlen=1)
            restart = 0xD0 + (restarts[0][0][1] + 1) % 8 if restarts else 0xD0
            parts += [coded[last:end], _FILLER, bytes((0xFF, restart)), _FILLER]
            last = end
            if len(parts) > 4 * MAX_SCANS:
                raise ImageError(f"JPEG with more than {MAX_SCANS} scans")
    if marker != _END:
        raise ImageError("truncated JPEG: it has no end")
    again = decode(b"".join(parts) + coded[last:])
    if any(not np.array_equal(pixels[i : i + _BAND], again[i : i + _BAND]) for i in range(0, len(pixels), _BAND)):
        raise ImageError("truncated JPEG: pixels are missing before its end")


def lacks_scans(coded: bytes) -> bool:
    """Whether a progressive stream ends before each coefficient has all its bits: it was cut, or made to be coarse.

    Source: ISO/IEC 10918-1, B.2.3 and G.1.1.1.
    """
    shifts: dict[int, list[int]] = {}  # of each component, by how many bits each coefficient is still too short
    for marker, start, _ in _segments(coded):
        if marker == _PROGRESSIVE:
            shifts = {coded[at]: [_NOTHING_YET] * 64 for at in range(start + 8, start + 8 + 3 * coded[start + 7], 3)}
        elif marker == _SCAN and shifts:
            count = coded[start + 2]
            first, last, approximation = coded[start + 3 + 2 * count : start + 6 + 2 * count]
            for at in range(start + 3, start + 3 + 2 * count, 2):
                shifts[coded[at]][first : last + 1] = [approximation & 15] * (last + 1 - first)
    return any(any(component) for component in shifts.values())


def _segments(coded: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker up to the end of the picture, where its body starts, and where its body or scan ends."""
    end = 2
    while found := _MARKER.search(coded, end):
        marker, start = found[1][0], found.end()
        end = start
        if marker in _WITHOUT_BODY:
            continue
        if marker != _END and start + 2 <= len(coded):
            end += struct.unpack_from(">H", coded, start)[0]
        if marker == _SCAN:
            following = _SCAN_END.search(coded, end)
            end = following.start() if following else len(coded)
        yield marker, start, end
        if marker == _END:
            return
