"""Bitmaps: PPM and PGM, binary or plain text, gzipped or not, because Pillow turns 16-bit RGB into 8 bit; and BMP."""

import io
import re
import zlib

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_GZIP = b"\x1f\x8b"
_SPACE = rb"(?:\s|#[^\n]*\n)"
_HEADER = re.compile(rb"P([2356])" + 3 * (_SPACE + rb"+(\d{1,9})") + rb"\s")
_WIDEST = 16  # bytes of a number in a plain file and of what stands around it
_MORE = "PPM with data behind its pixels; save the picture you want as a file of its own"


def decode_ppm(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey (P2, P5) or RGB (P3, P6); maxval up to 255 becomes 8 bit over the full range, a greater one 16 bit.

    Gzip is unpacked no further than the header promises.
    """
    head = _unpack(data, 4096)
    header = _HEADER.match(head)
    if header is None:
        if head[:2] in (b"P1", b"P4", b"P7"):
            raise ImageError(f"{head[:2].decode()} of the PNM family; PGM (P2, P5) and PPM (P3, P6) are read")
        raise ImageError("PPM without a valid header")
    width, height, maxval = map(int, header.groups()[1:])
    check_size(width, height, max_pixels)
    if not 1 <= maxval <= 65535:
        raise ImageError(f"PPM with maxval {maxval}; 1 to 65535 is allowed")
    shape = (height, width) if header[1] in b"25" else (height, width, 3)
    dtype = np.dtype(np.uint8 if maxval < 256 else ">u2")
    count = int(np.prod(shape))
    if header[1] in b"23":
        stored = _plain(_unpack(data, header.end() + _WIDEST * count)[header.end() :], count, maxval)
    elif header[0].endswith(b"\r") and header[0].count(b"\r") > 1:  # a line break of two bytes where one is allowed
        raise ImageError("PPM whose header has lines that end in CR LF; a program for text files changed it")
    else:
        raster = _unpack_whole(data, header.end() + count * dtype.itemsize)[header.end() :]
        if len(raster) < count * dtype.itemsize:
            raise ImageError(f"truncated PPM: {len(raster)} of {count * dtype.itemsize} bytes")
        stored = np.frombuffer(raster, dtype, count)
    return Photograph(fill_range(stored.reshape(shape).astype(dtype.newbyteorder("=")), maxval), "PPM")


def _plain(text: bytes, count: int, maxval: int) -> np.ndarray:
    """(count,) of the numbers of a plain file."""
    text = re.sub(rb"#[^\n]*", b"", text)
    if not re.fullmatch(rb"[0-9\s]*", text):
        raise ImageError("damaged PPM: plain numbers are needed")
    values = np.fromstring(text.decode(), np.int64, sep=" ")
    if len(values) > count:
        raise ImageError(_MORE)
    if len(values) < count:
        raise ImageError(f"truncated PPM: {len(values)} of {count} numbers")
    if values.max() > maxval:
        raise ImageError(f"PPM with values above its maxval {maxval}")
    return values


def encode_ppm(photograph: Photograph) -> bytes:
    """P5 for grey, P6 for RGB. The format has no room for ICC, EXIF and resolution."""
    height, width = photograph.pixels.shape[:2]
    kind, maxval = 5 if photograph.channels == 1 else 6, np.iinfo(photograph.pixels.dtype).max
    comment = f"# {photograph.provenance}\n" if photograph.provenance else ""
    header = f"P{kind}\n{comment}{width} {height}\n{maxval}\n".encode()
    return header + photograph.pixels.astype(photograph.pixels.dtype.newbyteorder(">")).tobytes()


def _unpack_whole(data: bytes, length: int) -> bytes:
    """`_unpack` of a file that must end there; for gzip the checksum is compared."""
    packed = zlib.decompressobj(31) if data[:2] == _GZIP else None
    content = packed.decompress(data, length + 3) if packed else data[: length + 3]
    # editors leave a line break behind the pixels, and tapes pad gzip with zeros
    if content[length:] not in (b"", b"\n", b"\r\n") or (packed and packed.unused_data.strip(b"\0")):
        raise ImageError(_MORE)
    if packed and not packed.eof:
        raise ImageError("truncated PPM: gzip without its end")
    return content


def _unpack(data: bytes, limit: int) -> bytes:
    """The first `limit` bytes, unpacked if gzipped."""
    return zlib.decompressobj(31).decompress(data, limit) if data[:2] == _GZIP else data[:limit]


def decode_bmp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; palettes become RGB. Alpha is refused: programs write it without meaning it."""
    with BmpImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("1", "L", "P", "RGB"):
            raise ImageError(f"BMP in {picture.mode}; save it as RGB without alpha")
        across, down = picture.info.get("dpi") or (0, 0)
        pixels = np.array(picture.convert({"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)))
    return Photograph(pixels, "BMP", dpi=(float(across), float(down)) if across > 0 and down > 0 else None)
