"""EXIF blocks: which way up the picture is, its resolution, and a copy that fits the upscaled picture."""

import io
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retinashift.imaging.photograph import Photograph, upright

_STATED_ELSEWHERE = (Base.Orientation, Base.XResolution, Base.YResolution, Base.ResolutionUnit)
_KEPT = (
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright, *_STATED_ELSEWHERE,
)  # fmt: skip
"""Tags of the first directory that describe the photograph, not how its file stores it."""
_UNTRUE = (
    IFD.MakerNote, IFD.Interop, 0x9214, 0xA214, Base.FocalPlaneXResolution, Base.FocalPlaneYResolution,
    Base.FocalPlaneResolutionUnit,
)  # fmt: skip
"""Tags with offsets into the file they come from, or with places (subject area and location) in the small picture."""
_PER_INCH = {2: 1.0, 3: 2.54}

Tags = dict[int, Any]
"""Values by tag; those of the Exif and GPS tags are directories of their own."""


class ByteText(str):
    """Text of an EXIF tag or a DICOM name, a character a byte. Written, it is those bytes again.

    Cameras store UTF-8 there, and worse; Pillow would replace what is not ASCII by question marks.
    """

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def load_exif(block: bytes | None, notes: list[str] | None = None, offset: int | None = None) -> Tags:
    """The descriptive tags, orientation, resolution, and the Exif and GPS directories of a TIFF structure.

    A damaged block is no reason to refuse the picture: it is left out, with a line appended to `notes`.

    Args:
        block: the structure, with or without an "Exif" prefix, or a whole TIFF or BigTIFF file.
        offset: of the directory; None is the first.
    """
    if not block:
        return {}
    try:
        block = block.removeprefix(b"Exif\0\0")
        directory = _read_directory(block, offset)
        tags: Tags = {tag: directory[tag] for tag in _KEPT if tag in directory}
        for tag in (tag for tag in (IFD.Exif, IFD.GPSInfo) if isinstance(directory.get(tag), int)):
            tags[tag] = {k: v for k, v in _read_directory(block, directory[tag]).items() if k not in _UNTRUE}
        dump_exif(tags)
    except Exception as error:  # Pillow raises whatever a damaged directory leads it to
        if notes is not None:
            notes.append(f"damaged EXIF is left out ({' '.join(str(error).split()) or type(error).__name__})")
        return {}
    return tags


def _read_directory(tiff: bytes, offset: int | None = None) -> dict[int, Any]:
    """The tags of a directory of a TIFF structure or file, the first if no offset is given."""
    if b"+" in tiff[2:4]:  # BigTIFF, which Pillow recognises in little-endian files only
        directory = ImageFileDirectory_v2(b"II+\0" + tiff[4:16], prefix=tiff[:2])
    else:
        directory = ImageFileDirectory_v2(tiff[:8])
    file = io.BytesIO(tiff)
    file.seek(directory.next if offset is None else offset)
    directory.load(file)
    return {tag: ByteText(value) if isinstance(value, str) else value for tag, value in directory.items()}


def exif_dpi(tags: Tags, per_inch: Mapping[int, float | None] = _PER_INCH) -> tuple[float, float] | None:
    """Pixels per inch, or None where the tags give no absolute resolution; units in `per_inch` count."""
    factor = per_inch.get(tags.get(Base.ResolutionUnit, 2))
    stated = (tags.get(Base.XResolution), tags.get(Base.YResolution))
    across, down = (float(value) if isinstance(value, Real) else 0.0 for value in stated)
    if factor is None or not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    return across * factor, down * factor


def dump_exif(tags: Tags, dpi: tuple[float, float] | None = None) -> bytes | None:
    """The TIFF structure of tags, and of a resolution; None if there are neither."""
    directory = make_directory(tags, dpi)
    return b"II*\0\x08\0\0\0" + directory.tobytes(8) if len(directory) else None


def make_directory(tags: Tags, dpi: tuple[float, float] | None) -> ImageFileDirectory_v2:
    """A little-endian directory of tags and of a resolution."""
    directory = ImageFileDirectory_v2()
    directory.update({tag: value for tag, value in tags.items() if value != {}})
    if dpi:
        directory[Base.XResolution], directory[Base.YResolution] = dpi
        directory[Base.ResolutionUnit] = 2  # inch
    return directory


def fit_exif(block: bytes | None, width: int, height: int) -> bytes | None:
    """A copy true of a picture of this size."""
    tags = load_exif(block)
    details = tags.get(IFD.Exif, {})
    sides = {Base.ExifImageWidth: width, Base.ExifImageHeight: height}
    details.update({tag: side for tag, side in sides.items() if tag in details})
    return dump_exif(tags)


def upright_photograph(
    pixels: np.ndarray, file_format: str, tags: Tags, *, xmp: bytes | None = None, icc: bytes | None = None,
    dpi: tuple[float, float] | None = None, notes: Sequence[str] = (), left_out: Sequence[str] = (), **fields: Any,
) -> Photograph:  # fmt: skip
    """The photograph turned as its EXIF `tags` say; other arguments are its fields, and `dpi` goes before that of EXIF.

    Most viewers do not follow the orientation in XMP: it is noted, if EXIF has none.
    """
    if xmp:
        left_out = ("XMP", *left_out)
        if (turned := xmp_orientation(xmp)) != 1 and Base.Orientation not in tags:
            notes = (*notes, f"XMP calls for orientation {turned} and EXIF for none; the picture is not turned")
    orientation, dpi = tags.get(Base.Orientation), dpi or exif_dpi(tags)
    if dpi is None and {tags.get(Base.XResolution, 1), tags.get(Base.YResolution, 1)} != {1}:
        left_out = (*left_out, "a resolution without a unit or a value")
    if dpi and orientation in (5, 6, 7, 8):
        dpi = dpi[::-1]
    return Photograph(
        upright(pixels, orientation), file_format, icc or None, dpi=dpi, notes=tuple(notes), left_out=tuple(left_out),
        exif=dump_exif({tag: value for tag, value in tags.items() if tag not in _STATED_ELSEWHERE}), **fields,
    )  # fmt: skip


def with_metadata_of(
    info: Mapping[Any, Any], pixels: np.ndarray, file_format: str, notes: Sequence[str] = (), turned: bool = False,
    **others: Any,
) -> Photograph:  # fmt: skip
    """`upright_photograph` by "exif", "xmp" and "icc_profile" of Pillow's `info`; the decoder may have `turned` it."""
    notes = [*notes]
    tags = load_exif(info.get("exif"), notes) | ({Base.Orientation: 1} if turned else {})
    xmp, icc = info.get("xmp"), info.get("icc_profile")
    return upright_photograph(pixels, file_format, tags, xmp=xmp, icc=icc, notes=notes, **others)


def xmp_orientation(xmp: bytes) -> int:
    """1 to 8, as a packet of XMP says; 1 where it does not.

    >>> xmp_orientation(b'<rdf:Description tiff:Orientation="6"/>')
    6
    """
    found = re.search(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""", xmp)
    return int(found[1]) if found else 1
