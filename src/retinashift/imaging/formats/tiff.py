"""TIFF: read through tifffile, written with Pillow's directories."""

from __future__ import annotations

import io
import itertools
import re
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image, TiffTags
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retinashift.imaging.formats.exif import (
    DESCRIPTIVE,
    exif_dpi,
    exif_orientation,
    load_directory,
    load_exif,
    upright_exif,
)
from retinashift.imaging.photograph import ImageError, Photograph, check_size, upright

# Decoders that stop at the size the page promises. JPEG inside TIFF does not: its own header may claim any size.
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "Zstandard"}
_PHOTOMETRICS = {1: "grey", 2: "RGB"}
_PREMULTIPLIED = 1
MAX_PAGE = 10_000
"""A chain of directories is followed no further."""
_UNSPECIFIED = 0
_RESOLUTION = (Base.XResolution, Base.YResolution, Base.ResolutionUnit)
_NOT_KEPT = {700: "XMP", 33723: "IPTC", 34377: "Photoshop's settings"}
_PRIVATE_DESCRIPTIONS = (
    (re.compile(r"ImageJ="), "ImageJ"),
    (re.compile(r'\s*\{"shape":'), "tifffile"),
    (re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<OME\b", re.DOTALL), "OME"),
)
"""Descriptions that are no text for people, and who reads them."""
_INCH_IN = {
    "nm": 2.54e7, "um": 25400, "\\u00b5m": 25400, "\u00b5m": 25400, "\u00c2\u00b5m": 25400, "micron": 25400,
    "microns": 25400, "micrometer": 25400, "mm": 25.4, "cm": 2.54, "inch": 1.0, "inches": 1.0,
}  # fmt: skip
"""Units as ImageJ writes them; the micro sign comes escaped, or as one or two bytes."""
_STRIP_BYTES = 2**20
_MAX_STRIPS_BYTES = 2**32 - 2**26  # leaves room for the directory


def decode_tiff(data: bytes, max_pixels: int, number: int | None = None) -> Photograph:
    """One page, 8 or 16 bit, grey or RGB, with or without alpha; strips or tiles, either byte order, BigTIFF too.

    Args:
        data: the file.
        max_pixels: limit of width x height.
        number: of the page, from 1; None allows a file of one page only.

    Raises:
        ImageError: above the limit, several pages and none chosen, no such page, truncated, or a kind of TIFF that is
            not read; tifffile's own errors for damaged files.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if number is None and _has_page(file, 2):
            raise ImageError("TIFF with several pages; choose one with --page, the first is 1")
        number = 1 if number is None else number
        if not 1 <= number <= MAX_PAGE or not _has_page(file, number):
            raise ImageError(f"TIFF without a page {number}")
        page = file.pages[number - 1]
        assert isinstance(page, tifffile.TiffPage)  # frames, which know less, come only from series
        _check_page(page, len(data), max_pixels)
        stored = page.asarray(maxworkers=1)
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            stored = np.moveaxis(stored, 0, -1)
        shape = (page.imagelength, page.imagewidth, *([page.samplesperpixel] if page.samplesperpixel > 1 else []))
        stored = stored.reshape(shape).astype(stored.dtype.newbyteorder("="), copy=False)
        icc = page.iccprofile
        notes: list[str] = []
        exif = load_directory(data, page.offset, notes)
        left_out = [name for tag, name in _NOT_KEPT.items() if tag in page.tags]
        if _UNSPECIFIED in page.extrasamples:
            notes.append(f"channel {page.samplesperpixel}, whose meaning it does not tell, is taken for alpha")
    orientation = exif_orientation(exif)
    dpi = exif_dpi(exif)
    text = str(exif.get(Base.ImageDescription, ""))
    if program := next((name for start, name in _PRIVATE_DESCRIPTIONS if start.match(text)), None):
        left_out.append(f"the description by which {program} tells sizes")  # they are the small picture's
        del exif[Base.ImageDescription]
        dpi = dpi or _imagej_dpi(text, exif)
    if dpi:
        for tag in _RESOLUTION:  # they have a place of their own in a TIFF
            if tag in exif:
                del exif[tag]
    dpi = dpi[::-1] if dpi and orientation > 4 else dpi
    block = upright_exif(exif, page.imagewidth, page.imagelength)
    return Photograph(
        upright(stored, orientation), "TIFF", icc, block, dpi, notes=tuple(notes), left_out=tuple(left_out)
    )


def encode_tiff(photograph: Photograph) -> bytes:
    """Deflate with horizontal predictor, lossless, little-endian. Written here because tifffile writes no EXIF.

    Raises:
        ImageError: above the 4 GiB of a classic TIFF.
    """
    pixels, channels = photograph.pixels, photograph.channels
    height, width = pixels.shape[:2]
    rows = max(1, _STRIP_BYTES // pixels[0].nbytes)
    strips = [_pack_strip(pixels[top : top + rows]) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    if sum(lengths) > _MAX_STRIPS_BYTES:
        raise ImageError("TIFF holds at most 4 GiB; write PNG")
    directory = _describe(photograph)
    directory[Base.ImageWidth], directory[Base.ImageLength] = width, height
    directory[Base.BitsPerSample] = (pixels.itemsize * 8,) * channels
    directory[Base.Compression] = 8  # deflate
    directory[Base.Predictor] = 2  # horizontal differences
    directory[Base.PhotometricInterpretation] = 1 if channels < 3 else 2  # MINISBLACK, RGB
    directory[Base.SamplesPerPixel] = channels
    directory[Base.RowsPerStrip] = rows
    directory.tagtype[Base.StripOffsets] = directory.tagtype[Base.StripByteCounts] = TiffTags.LONG
    directory[Base.StripOffsets] = [0, *itertools.accumulate(lengths[:-1])]  # Pillow adds where the directory ends
    directory[Base.StripByteCounts] = lengths
    if photograph.has_alpha:
        directory[Base.ExtraSamples] = 2  # plain alpha, not premultiplied
    header = struct.pack("<2sHI", b"II", 42, 8)  # the directory follows at byte 8, the strips behind it
    return header + directory.tobytes(8) + b"".join(strips)


def provenance_of_tiff(data: bytes) -> str:
    """The tag ProcessingSoftware of the first page, or ""."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages.first.tags.get(Base.ProcessingSoftware)
        return str(tag.value) if tag else ""


def _pack_strip(pixels: np.ndarray) -> bytes:
    """(rows, W) or (rows, W, C): differences along the row, modulo the range of the type, deflated."""
    difference = pixels.astype(pixels.dtype.newbyteorder("<"))
    difference[:, 1:] -= pixels[:, :-1]
    return zlib.compress(difference.tobytes())


def _describe(photograph: Photograph) -> ImageFileDirectory_v2:
    """A directory with EXIF, ICC profile and resolution, and nothing yet about how the pixels are stored."""
    exif = load_exif(photograph.exif)
    directory = ImageFileDirectory_v2()
    for tag in (tag for tag in (*DESCRIPTIVE, *_RESOLUTION) if exif.get(tag)):
        directory[tag] = exif[tag]
    for nested in (IFD.Exif, IFD.GPSInfo):
        # the offsets of maker notes and of the interoperability directory point into the file they came from
        values = {k: v for k, v in exif.get_ifd(nested).items() if k not in (IFD.MakerNote, IFD.Interop)}
        if values:
            directory[nested] = values
    if photograph.icc:
        directory.tagtype[Base.InterColorProfile] = TiffTags.UNDEFINED
        directory[Base.InterColorProfile] = photograph.icc
    if photograph.provenance:
        directory[Base.ProcessingSoftware] = photograph.provenance
    if photograph.dpi and exif_dpi(exif) is None:
        directory[Base.XResolution], directory[Base.YResolution] = photograph.dpi
        directory[Base.ResolutionUnit] = 2  # inch
    return directory


def _imagej_dpi(description: str, exif: Image.Exif) -> tuple[float, float] | None:
    """ImageJ counts pixels per unit in the resolution tags and names the unit in the description."""
    unit = re.search(r"^unit=(.*?)\s*$", description, re.MULTILINE)
    length = _INCH_IN.get(unit[1].lower()) if unit else None
    per_unit = exif_dpi(exif, {1: 1.0})
    return None if length is None or per_unit is None else (per_unit[0] * length, per_unit[1] * length)


def _check_page(page: tifffile.TiffPage, file_bytes: int, max_pixels: int) -> None:
    """ImageError unless the page is one of ours; from its tags, before anything is decoded."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.is_tiled:
        check_size(page.tilewidth, page.tilelength, max_pixels)
    if page.photometric not in _PHOTOMETRICS:
        raise ImageError(f"TIFF in {_name(page.photometric)}; grey (MINISBLACK) and RGB are read")
    if page.compression not in _COMPRESSIONS:
        allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(f"TIFF compressed with {_name(page.compression)}; {allowed} are read")
    if page.sampleformat != 1 or page.bitspersample not in (8, 16):
        raise ImageError(f"TIFF with {page.bitspersample} bit {_name(page.sampleformat)}; 8 and 16 bit UINT are read")
    colours = 1 if page.photometric == 1 else 3
    if page.imagedepth != 1 or page.samplesperpixel not in (colours, colours + 1):
        raise ImageError(f"TIFF with {page.samplesperpixel} samples a pixel; grey or RGB, at most one alpha, are read")
    if _PREMULTIPLIED in page.extrasamples:
        raise ImageError("TIFF with premultiplied alpha; save it with plain alpha or without")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    expected = -(-page.imagelength // rows) * -(-page.imagewidth // columns)
    expected *= page.samplesperpixel if page.planarconfig == 2 else 1
    if len(segments) < expected or any(not count or offset + count > file_bytes for offset, count in segments):
        raise ImageError("truncated TIFF: pixels are missing")


def _has_page(file: tifffile.TiffFile, number: int) -> bool:
    try:
        file.pages[number - 1]
    except IndexError:
        return False
    return True


def _name(value: object) -> str:
    return getattr(value, "name", str(value))
