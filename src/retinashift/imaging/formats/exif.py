"""EXIF blocks: which way up the picture is, its resolution, and a copy that fits the upscaled picture."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, MutableMapping
from fractions import Fraction
from math import isfinite
from numbers import Rational, Real
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from retinashift.imaging.photograph import Photograph, upright

DESCRIPTIVE = (
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright,
)  # fmt: skip
"""Tags of the first directory that describe the photograph, not how its file stores it."""
_KEPT = {*DESCRIPTIVE, Base.Orientation, Base.XResolution, Base.YResolution, Base.ResolutionUnit, IFD.Exif, IFD.GPSInfo}
_PER_INCH = {2: 1.0, 3: 2.54}
SUBJECT_AREA, SUBJECT_LOCATION = 0x9214, 0xA214  # the first has no name in Pillow


class ByteText(str):
    """Text of an EXIF tag or a DICOM name, a character a byte. Written, it is those bytes again.

    Cameras store UTF-8 there, and worse; Pillow would replace what is not ASCII by question marks.
    """

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def load_exif(block: bytes | None, notes: list[str] | None = None) -> Image.Exif:
    """Parse a TIFF structure; only descriptive tags, orientation, resolution, Exif and GPS directories are kept.

    A damaged block is no reason to refuse the picture: it is left out, with a line in `notes`.
    """
    exif = Image.Exif()
    if block:
        try:
            exif.load(block)
            for tag in set(exif) - _KEPT:  # thumbnails and strip offsets would describe another picture
                del exif[tag]
            for tag in {IFD.Exif, IFD.GPSInfo} & set(exif):
                _keep_bytes(exif.get_ifd(tag))
            _keep_bytes(exif)
            exif.tobytes()
        except Exception as error:  # Pillow raises whatever a damaged directory leads it to
            return _nothing(error, notes)
    return exif


def load_directory(tiff: bytes, offset: int, notes: list[str] | None = None) -> Image.Exif:
    """`load_exif` for the page of a TIFF or BigTIFF whose directory lies at `offset`; Pillow's reads the first only."""
    exif = Image.Exif()
    try:
        directory = _directory(tiff, offset)
        for tag in _KEPT & set(directory):
            if tag in (IFD.Exif, IFD.GPSInfo):
                exif.get_ifd(tag).update(_directory(tiff, directory[tag]))
                _keep_bytes(exif.get_ifd(tag))
            else:
                exif[tag] = directory[tag]
        _keep_bytes(exif)
        exif.tobytes()
    except Exception as error:  # as in `load_exif`
        return _nothing(error, notes)
    return exif


def _nothing(error: Exception, notes: list[str] | None) -> Image.Exif:
    if notes is not None:
        notes.append(f"damaged EXIF is left out ({' '.join(str(error).split()) or type(error).__name__})")
    return Image.Exif()


def _keep_bytes(tags: MutableMapping[int, Any]) -> None:
    for tag, value in list(tags.items()):
        if isinstance(value, str):
            tags[tag] = ByteText(value)


def _directory(tiff: bytes, offset: int) -> dict[int, Any]:
    if b"+" in tiff[2:4]:  # BigTIFF, which Pillow recognises in little-endian files only
        directory = ImageFileDirectory_v2(b"II+\0" + tiff[4:16], prefix=tiff[:2])
    else:
        directory = ImageFileDirectory_v2(tiff[:8])
    file = io.BytesIO(tiff)
    file.seek(offset)
    directory.load(file)
    return dict(directory)


def exif_orientation(exif: Image.Exif) -> int:
    """1 to 8; 1, upright, where the tag is missing or invalid."""
    value = exif.get(Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def exif_dpi(exif: Image.Exif, per_inch: Mapping[int, float] = _PER_INCH) -> tuple[float, float] | None:
    """Pixels per inch, or None where the tags give no absolute resolution; units in `per_inch` count."""
    factor = per_inch.get(exif.get(Base.ResolutionUnit, 2))
    across, down = exif.get(Base.XResolution), exif.get(Base.YResolution)
    if factor is None or not isinstance(across, Real) or not isinstance(down, Real):
        return None
    if not (0 < float(across) < 1e6 and 0 < float(down) < 1e6):
        return None
    return float(across) * factor, float(down) * factor


def dump_exif(exif: Image.Exif) -> bytes | None:
    """The TIFF structure, or None if nothing is in it."""
    return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else None


def upright_exif(exif: Image.Exif, width: int, height: int) -> bytes | None:
    """The TIFF structure without orientation, true of the picture turned upright; None if nothing else is in it.

    Args:
        exif: as loaded; changed in place.
        width: of the picture as stored, as `height` is.
    """
    orientation, details = exif_orientation(exif), _details(exif)
    if Base.Orientation in exif:
        del exif[Base.Orientation]
    if orientation > 4:
        for tags, one, other in (
            (exif, Base.XResolution, Base.YResolution),
            (details, Base.FocalPlaneXResolution, Base.FocalPlaneYResolution),
            (details, Base.ExifImageWidth, Base.ExifImageHeight),
        ):
            if one in tags and other in tags:
                tags[one], tags[other] = tags[other], tags[one]
    for tag in (SUBJECT_AREA, SUBJECT_LOCATION):
        place = _place(details.get(tag))
        if place:
            x, y, *extent = place
            x = width - 1 - x if orientation in (2, 3, 7, 8) else x
            y = height - 1 - y if orientation in (3, 4, 6, 7) else y
            details[tag] = (y, x, *extent[::-1]) if orientation > 4 else (x, y, *extent)
    return dump_exif(exif)


def fit_exif(block: bytes | None, width: int, height: int, scale: float) -> bytes | None:
    """A copy true of the picture enlarged by `scale` to this size: its size, resolution and places, where present."""
    exif = load_exif(block)
    details = _details(exif)
    for tag, side in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = side
    for tags, names in (
        (exif, (Base.XResolution, Base.YResolution)),
        (details, (Base.FocalPlaneXResolution, Base.FocalPlaneYResolution)),
    ):
        for name in names:
            value = tags.get(name)
            if isinstance(value, (float, Rational)) and isfinite(value):
                tags[name] = IFDRational((Fraction(value) * Fraction(scale)).limit_denominator(10**6))
    for subject in (SUBJECT_AREA, SUBJECT_LOCATION):
        if place := _place(details.get(subject)):
            x, y, *extent = place
            middle = (int((value + 0.5) * scale) for value in (x, y))  # a pixel's middle stays its middle
            details[subject] = (*middle, *(round(value * scale) for value in extent))
    return dump_exif(exif)


def _details(exif: Image.Exif) -> dict[int, Any]:
    return exif.get_ifd(IFD.Exif) if IFD.Exif in exif else {}  # asking for a missing directory would add it


def _place(value: object) -> tuple[int, ...] | None:
    """A point and, perhaps, a diameter or width and height, if the tag's value is such."""
    if isinstance(value, tuple) and 2 <= len(value) <= 4 and all(isinstance(v, int) and v >= 0 for v in value):
        return value
    return None


def upright_photograph(
    pixels: np.ndarray,
    file_format: str,
    exif: Image.Exif,
    *,
    dpi: tuple[float, float] | None = None,
    **others: Any,
) -> Photograph:
    """The photograph turned as its EXIF says, its metadata with it.

    Args:
        pixels: as stored.
        file_format: name of the format.
        exif: as loaded; changed in place.
        dpi: from another place of the file, if it has one that goes before EXIF's.
        others: further fields of `Photograph`.
    """
    orientation, dpi = exif_orientation(exif), dpi or exif_dpi(exif)
    block = upright_exif(exif, pixels.shape[1], pixels.shape[0])
    dpi = dpi[::-1] if dpi and orientation > 4 else dpi
    return Photograph(upright(pixels, orientation), file_format, exif=block, dpi=dpi, **others)


def xmp_orientation(xmp: bytes) -> int:
    """1 to 8, as a packet of XMP says; 1 where it does not.

    >>> xmp_orientation(b'<rdf:Description tiff:Orientation="6"/>')
    6
    """
    found = re.search(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""", xmp)
    return int(found[1]) if found else 1


def note_xmp_orientation(xmp: bytes, exif: Image.Exif, notes: list[str]) -> None:
    """Add a note if XMP alone says that the picture is turned: most viewers do not follow it there."""
    if (turned := xmp_orientation(xmp)) != 1 and Base.Orientation not in exif:
        notes.append(f"XMP calls for orientation {turned} and EXIF for none; the picture is not turned")
