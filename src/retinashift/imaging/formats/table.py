"""The file formats: how each is recognised, read and written, and what it can hold.

To add a format, write its decoder (and encoder) in a file of this folder and add one entry to the table below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retinashift.imaging.dicom.derived import encode_dicom
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.dicom.structure import is_dicom
from retinashift.imaging.formats import bitmaps, boxed, jpeg, png, tiff
from retinashift.imaging.photograph import ImageError, Photograph


@dataclass(frozen=True)
class Format:
    """What is known about a file format."""

    name: str
    suffixes: tuple[str, ...]
    """Ends of names in lower case; the first is given to files that have none."""
    matches: Callable[[bytes], bool]
    """Whether the first `HEAD` bytes of a file are this format's."""
    decode: Callable[[bytes, int, int | None], Photograph]
    """File, limit of pixels, and page from 1 or None -> photograph. ImageError for what is not read, above the limit,
    truncated or animated; anything for damaged files."""
    encode: Callable[..., bytes] | None = None
    """Photograph, and quality if `lossy` -> file; None for a format that is only read."""
    compressed_suffixes: tuple[str, ...] = ()
    """Ends of names that are read and not written."""
    pages: bool = False
    """Whether `decode` chooses among several pictures in a file."""
    lossy: bool = False
    deep: bool = True
    """Whether it holds 16 bit."""
    grey: bool = True
    colour: bool = True
    alpha: bool = True
    longest_side: int = 2**31 - 1

    def check(self, photograph: Photograph, scale: float = 1) -> None:
        """Raise ImageError if the format cannot hold the photograph's pixels, upscaled by `scale`."""
        height, width = (int(side * scale + 0.5) for side in photograph.pixels.shape[:2])
        kind, held = ("grey", self.grey) if photograph.channels < 3 else ("colour", self.colour)
        size, most = f"{width}x{height} pixels", f"{self.longest_side:,} a side"
        faults = {
            f"the result has {size} and {self.name} holds {most}": max(height, width) > self.longest_side,
            f"{self.name} holds 8 bit only and the picture has 16": photograph.pixels.itemsize == 2 and not self.deep,
            f"{self.name} holds no alpha channel": photograph.has_alpha and not self.alpha,
            f"{self.name} cannot hold {kind}, and the picture is {kind}": not held,
        }
        if fault := next((fault for fault, found in faults.items() if found), None):
            raise ImageError(f"{fault}; write PNG or TIFF")


HEAD = 4096
"""Bytes that `Format.matches` sees."""


def _starts(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ALL = (
    Format(  # first: what stands in the 128 bytes in front of its magic number may look like anything
        "DICOM", (".dcm",), is_dicom, decode_dicom, encode_dicom, pages=True, alpha=False, longest_side=2**16 - 1
    ),
    Format("PNG", (".png",), _starts(png.SIGNATURE), png.decode_png, png.encode_png),
    Format(
        "JPEG", (".jpg", ".jpeg"), _starts(b"\xff\xd8\xff"), jpeg.decode_jpeg, jpeg.encode_jpeg, lossy=True, deep=False,
        alpha=False, longest_side=65_500,
    ),
    Format("TIFF", (".tif", ".tiff"), _starts(*_TIFF), tiff.decode_tiff, tiff.encode_tiff, pages=True),
    Format(
        "WebP", (".webp",), lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", boxed.decode_webp,
        boxed.encode_webp, deep=False, grey=False, longest_side=16_383,
    ),
    Format(
        "PPM", (".ppm",), _starts(b"\x1f\x8b", *(b"P%d" % n for n in range(1, 8))), bitmaps.decode_ppm,
        bitmaps.encode_ppm, (".ppm.gz", ".pgm.gz"), alpha=False,
    ),
    Format("PGM", (".pgm",), lambda head: False, bitmaps.decode_ppm, bitmaps.encode_ppm, colour=False, alpha=False),
    Format("BMP", (".bmp",), _starts(b"BM"), bitmaps.decode_bmp),
    Format("JPEG 2000", (".jp2", ".j2k"), _starts(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), boxed.decode_jpeg2000),
    Format("AVIF", (".avif",), lambda head: boxed.has_brand(head, boxed.AVIF), boxed.decode_avif),
    Format("HEIC", (".heic", ".heif"), lambda head: boxed.has_brand(head, boxed.HEIC), boxed.decode_heic),
    Format("JPEG XL", (".jxl",), _starts(b"\xff\x0a", b"\0\0\0\x0cJXL "), boxed.decode_jpegxl),
)  # fmt: skip
FORMATS: dict[str, Format] = {known.name: known for known in _ALL}
"""Every format that is read, by name. The first whose `matches` is true reads a file."""

_REFUSED = (
    (0, b"GIF8", "GIF"), (4, b"ftyp", "a video or another ISO media file"), (0, b"%PDF", "PDF"),
    (0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "PostScript"), (0, b"<svg", "SVG"), (0, b"<?xml", "XML or SVG"),
    (0, b"PK\x03\x04", "zip"), (0, (b"\x08\0\x05\0", b"\x08\0\x08\0"), "DICOM without its file header"),
)  # fmt: skip


def format_of_bytes(head: bytes) -> Format:
    """The format of a file that begins with these bytes. ImageError for none of `FORMATS`, named where it is known."""
    found = next((known for known in FORMATS.values() if known.matches(head[:HEAD])), None)
    if found is not None:
        return found
    if not head:
        raise ImageError("an empty file")
    allowed = ", ".join(name for name in FORMATS if name != "PGM")
    for offset, magic, kind in _REFUSED:
        if head.startswith(magic, offset):
            raise ImageError(f"{kind} is not read; convert it to PNG or TIFF ({allowed} are read)")
    raise ImageError(f"not an image file of a known format; {allowed} are read")


def format_of_name(name: str | Path) -> Format | None:
    """The format that is written to a file of this name; None for a suffix that is not written."""
    suffix = Path(name).suffix.lower()
    return next((known for known in FORMATS.values() if known.encode and suffix in known.suffixes), None)
