"""AVIF: metadata through Pillow, pixels through libavif, because Pillow reduces 10 and 12 bit to 8."""

from __future__ import annotations

import io
import struct

import imagecodecs
from PIL.AvifImagePlugin import AvifImageFile

from retinashift.imaging.formats.exif import load_exif, upright_photograph
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range

_BRANDS = (b"avif", b"avis")


def is_avif(head: bytes) -> bool:
    """Whether a file names AVIF among its brands. Source: ISO/IEC 14496-12, 4.3."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return False
    (length,) = struct.unpack_from(">I", head)
    return any(head[start : start + 4] in _BRANDS for start in (8, *range(16, min(length, len(head)), 4)))


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
    notes: list[str] = []
    exif = load_exif(info.get("exif", b"").removeprefix(b"Exif\0\0"), notes)
    pixels = imagecodecs.avif_decode(data, numthreads=1)
    if pixels.shape[1::-1] != size:
        raise ImageError("AVIF whose pictures differ in size; save the picture you want as a file of its own")
    if pixels.itemsize == 2:
        configuration = data.find(b"av1C")
        twelve = configuration >= 0 and data[configuration + 6] & 0x20  # Source: AV1-ISOBMFF, 2.3.3
        pixels = fill_range(pixels, 4095 if twelve else 1023)
    return upright_photograph(
        pixels, "AVIF", exif, icc=info.get("icc_profile") or None, notes=tuple(notes),
        left_out=("XMP",) if info.get("xmp") else (),
    )  # fmt: skip
