"""PNG. Pixels go through libpng, because Pillow turns 16-bit RGB into 8 bit; metadata chunks are read here."""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
from PIL.ExifTags import Base

from retinashift.imaging.formats.exif import load_exif, upright_photograph, xmp_orientation
from retinashift.imaging.photograph import ImageError, Photograph, check_size
from retinashift.imaging.provenance import KEYWORD

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
"""Types of the chunks that say how values look, except the ICC profile."""
_XMP = "XML:com.adobe.xmp"
_RAW_EXIF = ("Raw profile type exif", "Raw profile type APP1")
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MAX_ICC_BYTES = 16 * 2**20
_INCH = 0.0254  # metres; PNG counts pixels per metre


def decode_png(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Palettes become RGB, a transparent colour becomes an alpha channel, 1, 2 and 4 bit grey become 8 bit.

    Orientation is taken from EXIF, in its chunk or in the text where older programs keep it, or else from XMP.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ImageError("PNG without a header")
    width, height = struct.unpack(">II", data[16:24])
    check_size(width, height, max_pixels)
    chunks, texts = dict[bytes, bytes](), dict[str, bytes]()
    bare = [SIGNATURE]  # pixels only: libpng prints complaints about metadata without the name of the file
    for kind, body, whole in _walk(data):
        chunks.setdefault(kind, body if kind != b"IDAT" else b"")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = body[:80].partition(b"\0")[0]
            texts.setdefault(keyword.decode("latin-1"), kind + body[len(keyword) + 1 :])
        elif kind in _PIXELS:
            bare.append(whole)
    if struct.unpack(">I", chunks.get(b"acTL", b"\0\0\0\1")[:4])[0] > 1:
        raise ImageError("animated PNG; save the picture you want as a file of its own")
    if b"IDAT" not in chunks:  # libpng's message would come from memory that it has freed
        raise ImageError("PNG without pixels")
    notes: list[str] = []
    exif = load_exif(chunks.get(b"eXIf") or _raw_profile(texts), notes)
    if _XMP in texts:
        exif.setdefault(Base.Orientation, xmp_orientation(_text(texts[_XMP])))
    left_out = ["XMP" if name == _XMP else f"text {name!r}" for name in texts if name not in (KEYWORD, *_RAW_EXIF)]
    across, down, unit = struct.unpack(">IIB", chunks.get(b"pHYs", bytes(9)))
    dpi = (across * _INCH, down * _INCH) if unit == 1 and across and down else None
    icc = _read_icc(chunks[b"iCCP"], notes) if b"iCCP" in chunks else None
    colour = tuple((kind, chunks[kind]) for kind in _COLOUR if kind in chunks)
    pixels = imagecodecs.png_decode(b"".join(bare))
    return upright_photograph(pixels, "PNG", exif, dpi=dpi, icc=icc, colour=colour, notes=notes, left_out=left_out)


def encode_png(photograph: Photograph) -> bytes:
    """8 or 16 bit, grey or RGB, with or without alpha; metadata between header and pixels."""
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
    """Whether such chunks say no more than what is assumed without them."""
    return any(kind == b"sRGB" for kind, _ in colour) or colour == ((b"gAMA", struct.pack(">I", 45455)),)


def _walk(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Type, body and whole of each chunk, in order, IEND included."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        yield kind, data[position + 8 : end - 4], data[position:end]
        if kind == b"IEND":
            return
        position = end
    raise ImageError("truncated PNG")


def _text(stored: bytes) -> bytes:
    """The text behind the keyword of a chunk, whose type comes first; unpacked, no further than a megabyte."""
    kind, body = stored[:4], stored[4:]
    packed = kind == b"zTXt" or (kind == b"iTXt" and body[:1] == b"\1")
    translated = body[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind language and translated keyword
    body = {b"zTXt": body[1:], b"iTXt": translated}.get(kind, body)
    try:
        return zlib.decompressobj().decompress(body, 2**20) if packed else body
    except zlib.error:
        return b""


def _raw_profile(texts: dict[str, bytes]) -> bytes | None:
    """EXIF as ImageMagick and others write it: a name, a length, and hexadecimal digits."""
    stored = next((texts[name] for name in _RAW_EXIF if name in texts), b"")
    try:
        profile = bytes.fromhex("".join(_text(stored).decode("latin-1").split()[2:]))
    except ValueError:
        return None
    return profile if profile.startswith(b"Exif") else None


def _read_icc(body: bytes, notes: list[str]) -> bytes | None:
    try:
        profile = zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], _MAX_ICC_BYTES + 1)
    except zlib.error as error:
        notes.append(f"a damaged ICC profile is left out ({error})")
        return None
    if len(profile) > _MAX_ICC_BYTES:
        raise ImageError(f"ICC profile above {_MAX_ICC_BYTES >> 20} MiB")
    return profile
