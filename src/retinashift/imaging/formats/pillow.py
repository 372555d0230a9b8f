"""BMP, WebP, AVIF and HEIC: headers and metadata through Pillow or pi-heif, pixels where their depth is kept."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.WebPImagePlugin import WebPImageFile

from retinashift.imaging.formats.exif import dump_exif, load_exif, upright_photograph
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_ANIMATED = 2  # flag of the extended header of WebP
AVIF, HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
"""Brands of files in the container of ISO/IEC 14496-12."""

# The plugins are opened themselves and not by Image.open, whose own limit of pixels cannot be raised for one file.


def decode_bmp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit grey or RGB; bitmaps become black and white, palettes become RGB.

    Raises:
        ImageError: above the limit, truncated, or with alpha, which programs write without meaning it.
    """
    with BmpImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if picture.mode not in ("1", "L", "P", "RGB"):
            raise ImageError(f"BMP in {picture.mode}; save it as RGB without alpha")
        across, down = picture.info.get("dpi") or (0, 0)
        pixels = np.array(picture.convert({"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)))
    return Photograph(pixels, "BMP", dpi=(float(across), float(down)) if across > 0 and down > 0 else None)


def decode_webp(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """8-bit RGB, with or without alpha; the format has no grey and no 16 bit.

    Raises:
        ImageError: above the limit, animated, or without a header; Pillow's own errors for damaged files.
    """
    check_size(*_webp_size(data), max_pixels)
    with WebPImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        return _with_metadata(np.array(picture), "WebP", picture.info)


def encode_webp(photograph: Photograph) -> bytes:
    """Lossless. Resolution and provenance are EXIF tags, for the format has no other place for them."""
    tags = load_exif(photograph.exif)
    if photograph.provenance:
        tags[Base.ProcessingSoftware] = photograph.provenance
    settings: dict[str, object] = {"lossless": True, "exact": True}  # exact: colours under full transparency too
    if exif := dump_exif(tags, photograph.dpi):
        settings["exif"] = b"Exif\0\0" + exif
    if photograph.icc:
        settings["icc_profile"] = photograph.icc
    buffer = io.BytesIO()
    Image.fromarray(photograph.pixels).save(buffer, "WEBP", **settings)
    return buffer.getvalue()


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk: opening the file would already allocate the canvas.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        if body[0] & _ANIMATED:
            raise ImageError("animated WebP; save the picture you want as a file of its own")
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ImageError("WebP without a valid header")


def has_brand(head: bytes, brands: tuple[bytes, ...]) -> bool:
    """Whether a file names one of these brands. Source: ISO/IEC 14496-12, 4.3."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return False
    (length,) = struct.unpack_from(">I", head)
    return any(head[start : start + 4] in brands for start in (8, *range(16, min(length, len(head)), 4)))


def decode_avif(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; 8 bit, or 16 bit for 10 and 12. Rotations in the container are applied.

    Raises:
        ImageError: above the limit, or several pictures; Pillow's and libavif's own errors for damaged files.
    """
    with AvifImageFile(io.BytesIO(data)) as picture:
        check_size(*picture.size, max_pixels)
        if getattr(picture, "n_frames", 1) > 1:
            raise ImageError("animated AVIF; save the picture you want as a file of its own")
        info, size = picture.info, picture.size
    pixels = imagecodecs.avif_decode(data, numthreads=1)  # Pillow reduces 10 and 12 bit to 8
    if pixels.shape[1::-1] != size:
        raise ImageError("AVIF whose pictures differ in size; save the picture you want as a file of its own")
    if pixels.itemsize == 2:
        configuration = data.find(b"av1C")
        twelve = configuration >= 0 and data[configuration + 6] & 0x20  # Source: AV1-ISOBMFF, 2.3.3
        pixels = fill_range(pixels, 4095 if twelve else 1023)
    return _with_metadata(pixels, "AVIF", info)


def decode_heic(data: bytes, max_pixels: int, page: int | None = None) -> Photograph:
    """Grey or RGB, with or without alpha; 8 bit, or 16 bit for more. Rotations in the container are applied.

    Raises:
        ImageError: pi-heif missing, above the limit, or several pictures; its own errors for damaged files.
    """
    if find_spec("pi_heif") is None:
        raise ImageError("HEIC needs pi-heif: pip install 'retinashift[heic]', or convert it to PNG")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _HEIC_CHILD, str(max_pixels)], input=data, capture_output=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        raise ImageError("damaged HEIC: not decoded in time") from None
    if done.returncode:
        raise ImageError("damaged HEIC")
    found = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    count, width, height, bits = (int(value) for value in found["facts"])
    if count > 1:
        raise ImageError(f"HEIC with {count} pictures; save the picture you want as a file of its own")
    check_size(width, height, max_pixels)
    info = {name: found[name].tobytes() for name in ("exif", "xmp", "icc_profile")}
    return _with_metadata(fill_range(found["pixels"], 2**bits - 1), "HEIC", info, turned=True)


# In a process of its own: on some damaged files libheif 1.23 ends the process that it runs in.
_HEIC_CHILD = """
import io, sys
import numpy as np
from pi_heif import open_heif
file = open_heif(io.BytesIO(sys.stdin.buffer.read()), convert_hdr_to_8bit=False, hdr_to_16bit=False)
few = file.size[0] * file.size[1] <= int(sys.argv[1]) and len(file) == 1
pixels = np.asarray(file) if few else np.zeros(0, np.uint8)
blocks = {name: np.frombuffer(file.info.get(name) or b"", np.uint8) for name in ("exif", "xmp", "icc_profile")}
out = io.BytesIO()
np.savez(out, facts=[len(file), *file.size, file.info["bit_depth"]], pixels=pixels, **blocks)
sys.stdout.buffer.write(out.getvalue())
"""


def _with_metadata(pixels: np.ndarray, name: str, info: dict[Any, Any], turned: bool = False) -> Photograph:
    """The upright photograph; one that the decoder has `turned` needs no more of it."""
    notes: list[str] = []
    tags = load_exif(info.get("exif"), notes)
    if turned:
        tags[Base.Orientation] = 1
    return upright_photograph(pixels, name, tags, xmp=info.get("xmp"), icc=info.get("icc_profile"), notes=notes)
