"""JPEG through Pillow; what JPEG streams claim before they are decoded, and whether their pixels are complete."""

import io
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from retinashift.imaging.formats.exif import Tags, exif_dpi, with_metadata_of
from retinashift.imaging.photograph import ImageError, Photograph, check_size
from retinashift.imaging.provenance import is_account

MAX_DPI = 65535
"""Highest resolution that its header holds."""
_MOST_EXIF, _MOST_ICC = 65_533 - 6, 255 * (65_533 - 14)  # bytes, in one segment and in 255
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = range(0xC9, 0xD0)
_SCAN, _END = 0xDA, 0xD9
_PROGRESSIVE, _NOTHING_YET = 0xC2, 16
_WITHOUT_BODY = {0x01, *range(0xD0, 0xD9)}
_FILLER = bytes((167 * i + 13) % 255 for i in range(255))
"""Never 0xff, and no regular pattern, which could decode to nothing, as zeros do."""
_MAX_SCANS = 1000  # each is a pass over the whole picture; encoders write about ten
_BAND = 512  # rows compared at a time


def decode_jpeg(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; JPEG's own YCbCr becomes RGB. Of several pictures (MPO) the first is read."""
    header = frame_header(data)
    if header and header[0] != 8:
        raise ImageError(f"{header[0]}-bit JPEG; only 8-bit JPEG is read, convert it to 16-bit PNG or TIFF")
    with JpegImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("L", "RGB"):
            raise ImageError(f"JPEG in {picture.mode}; convert it to RGB or grey")
        info, pixels = picture.info, np.array(picture)
    comment = bytes(info.get("comment", b"")).decode("latin-1")
    others = {
        "its other pictures, such as a second view, a gain map or a preview": "mp" in info,
        "IPTC": "photoshop" in info,
        "comment": comment and not is_account(comment),
    }
    check_whole(data, pixels, _pixels)
    notes = ["its last scans are missing, or were never made: it is coarser than it could be"] * lacks_scans(data)
    left_out = [name for name, there in others.items() if there]
    across, down = info.get("jfif_density", (0, 0))  # Pillow's own "dpi" invents 72 where EXIF has none
    jfif: Tags = {Base.XResolution: across, Base.YResolution: down, Base.ResolutionUnit: info.get("jfif_unit")}
    dpi = exif_dpi(jfif, {1: 1.0, 2: 2.54})
    return with_metadata_of(info, pixels, "JPEG", notes, dpi=dpi, left_out=left_out)


def encode_jpeg(photograph: Photograph, quality: int = 95) -> bytes:
    """Colour in full resolution (4:4:4), yet with loss. ImageError if EXIF or profile is longer than JPEG holds."""
    if not 1 <= quality <= 100:
        raise ImageError(f"quality is {quality}; 1 to 100 is allowed")
    exif, icc = photograph.exif or b"", photograph.icc or b""
    for name, block, most in (("EXIF", exif, _MOST_EXIF), ("ICC profile", icc, _MOST_ICC)):
        if len(block) > most:
            raise ImageError(f"{name} of {len(block):,} bytes; JPEG holds {most:,}, write PNG or TIFF")
    dpi = photograph.dpi if photograph.dpi and max(photograph.dpi) <= MAX_DPI else (0, 0)
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(
        buffer, "JPEG", quality=quality, subsampling=0, dpi=dpi, icc_profile=icc, comment=photograph.provenance,
        exif=b"Exif\0\0" + exif if exif else b"",
    )  # fmt: skip
    return buffer.getvalue()


def _pixels(data: bytes) -> np.ndarray:
    with JpegImageFile(io.BytesIO(data)) as picture:  # not Image.open, whose limit cannot be raised for one file
        return np.array(picture)


def frame_claims(coded: bytes) -> tuple[int, int, int] | None:
    """Width, height and number of components in the header of a JPEG, JPEG-LS or JPEG 2000 stream; None without one.

    Source: ISO/IEC 10918-1, B.2.2; ISO/IEC 14495-1, C.2.2; ISO/IEC 15444-1, A.5.1.
    """
    if not coded.startswith(b"\xff\xd8"):
        coded = codestream(coded)
        if len(coded) < 42:
            return None
        width, height, left, top = struct.unpack_from(">4I", coded, 8)
        return width - left, height - top, struct.unpack_from(">H", coded, 40)[0]
    header = frame_header(coded)
    return (header[2], header[1], header[3]) if header else None


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

    A decoder that runs out of data invents the rest, and libjpeg's warning does not reach Python. Therefore a copy is
    decoded, with meaningless bytes behind each scan: only a scan that was cut short changes, for a decoder reads no
    more bits than a complete one has.

    Arithmetic coding is not checked: its scans may leave out zeros at their end. For whole scans that are missing from
    a progressive stream see `lacks_scans`. `pixels` is what `decode(coded)` gave.
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
            if len(parts) > 4 * _MAX_SCANS:
                raise ImageError(f"JPEG with more than {_MAX_SCANS} scans")
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
