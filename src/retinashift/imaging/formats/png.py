"""PNG. Pixels go through libpng, because Pillow turns 16-bit RGB into 8 bit; metadata chunks are read here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import imagecodecs

from retinashift.imaging.formats.exif import exif_dpi, exif_orientation, load_exif, upright_exif
from retinashift.imaging.photograph import ImageError, Photograph, check_size, upright
from retinashift.imaging.provenance import KEYWORD

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
"""Types of the chunks that say how values look, but for the ICC profile."""
_XMP = "XML:com.adobe.xmp"
_MAX_ICC_BYTES = 16 * 2**20
_INCH = 0.0254  # metres; PNG counts pixels per metre


def decode_png(data: bytes, max_pixels: int) -> Photograph:
    """Palettes become RGB, a transparent colour becomes an alpha channel, 1, 2 and 4 bit grey become 8 bit.

    Raises:
        ImageError: above the limit, truncated, animated, or damaged; libpng's own error for damaged pixels.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ImageError("PNG without a header")
    width, height = struct.unpack(">II", data[16:24])
    check_size(width, height, max_pixels)
    chunks = _read_chunks(data)
    if struct.unpack(">I", chunks.get(b"acTL", b"\0\0\0\1")[:4])[0] > 1:
        raise ImageError("animated PNG; save the picture you want as a file of its own")
    notes: list[str] = []
    exif = load_exif(chunks.get(b"eXIf"), notes)
    orientation = exif_orientation(exif)
    dpi = _read_dpi(chunks[b"pHYs"]) if b"pHYs" in chunks else exif_dpi(exif)
    pixels = upright(imagecodecs.png_decode(data), orientation)
    icc = _read_icc(chunks[b"iCCP"], notes) if b"iCCP" in chunks else None
    dpi = dpi[::-1] if dpi and orientation > 4 else dpi
    colour = tuple((kind, chunks[kind]) for kind in COLOUR if kind in chunks)
    block = upright_exif(exif, width, height)
    left_out = tuple(dict.fromkeys(_texts(data)))
    return Photograph(pixels, "PNG", icc, block, dpi, colour, notes=tuple(notes), left_out=left_out)


def encode_png(photograph: Photograph) -> bytes:
    """8 or 16 bit, grey or RGB, with or without alpha; metadata between header and pixels.

    Raises:
        ImageError: an ICC profile longer than `decode_png` reads.
    """
    if len(photograph.icc or b"") > _MAX_ICC_BYTES:
        raise ImageError(f"the ICC profile is above {_MAX_ICC_BYTES >> 20} MiB; write TIFF")
    data = bytes(imagecodecs.png_encode(photograph.pixels))
    chunks = list(photograph.colour)
    if photograph.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(photograph.icc)))
    if photograph.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(min(round(v / _INCH), 2**31 - 1) for v in photograph.dpi), 1)))
    if photograph.exif:
        chunks.append((b"eXIf", photograph.exif))
    if photograph.provenance:  # keyword, not compressed, no language, no translated keyword
        chunks.append((b"iTXt", KEYWORD.encode() + bytes(5) + photograph.provenance.encode()))
    end_of_header = len(SIGNATURE) + 12 + 13
    metadata = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return data[:end_of_header] + metadata + data[end_of_header:]


def is_srgb(colour: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether such chunks say no more than what is taken for granted without them."""
    return any(kind == b"sRGB" for kind, _ in colour) or colour == ((b"gAMA", struct.pack(">I", 45455)),)


def provenance_of_png(data: bytes) -> str:
    """The text of our chunk, or ""."""
    prefix = KEYWORD.encode() + bytes(5)
    for kind, body in _walk(data):
        if kind == b"iTXt" and body.startswith(prefix):
            return body[len(prefix) :].decode()
    return ""


def _read_chunks(data: bytes) -> dict[bytes, bytes]:
    """The first chunk body of each type, pixel data apart."""
    chunks: dict[bytes, bytes] = {}
    for kind, body in _walk(data):
        chunks.setdefault(kind, body)
    return chunks


def _walk(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each chunk up to IEND, in order, pixel data apart."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length
    raise ImageError("truncated PNG")


def _read_dpi(body: bytes) -> tuple[float, float] | None:
    across, down, unit = struct.unpack(">IIB", body)
    return (across * _INCH, down * _INCH) if unit == 1 and across and down else None


def _texts(data: bytes) -> Iterator[str]:
    """Names of the texts in it, but for the account that results have."""
    for kind, body in _walk(data):
        keyword = body[:79].partition(b"\0")[0].decode("latin-1")
        if kind == b"iTXt" and keyword == _XMP:
            yield "XMP"
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and keyword != KEYWORD:
            yield f"text {keyword!r}"


def _read_icc(body: bytes, notes: list[str]) -> bytes | None:
    _, _, packed = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], _MAX_ICC_BYTES + 1)
    except zlib.error as error:
        notes.append(f"a damaged ICC profile is left out ({error})")
        return None
    if len(profile) > _MAX_ICC_BYTES:
        raise ImageError(f"ICC profile above {_MAX_ICC_BYTES >> 20} MiB")
    return profile
