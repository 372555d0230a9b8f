"""EXIF blocks: which way up the picture is, its resolution, and a copy that fits the enlarged picture."""

from __future__ import annotations

import io
import logging
from numbers import Real
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

logger = logging.getLogger(__name__)

DESCRIPTIVE = (
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright,
)  # fmt: skip
"""Tags of the first directory that tell about the photograph and not about how its file stores it."""
_KEPT = {*DESCRIPTIVE, Base.Orientation, Base.XResolution, Base.YResolution, Base.ResolutionUnit, IFD.Exif, IFD.GPSInfo}


def load_exif(block: bytes | None) -> Image.Exif:
    """Parse a TIFF structure; only descriptive tags, orientation, resolution, Exif and GPS directories are kept.

    A damaged block is no reason to refuse the picture: it is left out, with a warning in the log.
    """
    exif = Image.Exif()
    if block:
        try:
            exif.load(block)
            for tag in set(exif) - _KEPT:  # thumbnails and strip offsets would describe another picture
                del exif[tag]
            exif.tobytes()
        except Exception as error:  # Pillow raises whatever a damaged directory leads it to
            logger.warning("damaged EXIF is left out (%s)", error)
            return Image.Exif()
    return exif


def load_directory(tiff: bytes, offset: int) -> Image.Exif:
    """`load_exif` for the page of a TIFF or BigTIFF whose directory lies at `offset`; Pillow's reads the first only."""
    exif = Image.Exif()
    try:
        directory = _directory(tiff, offset)
        for tag in _KEPT & set(directory):
            if tag in (IFD.Exif, IFD.GPSInfo):
                exif.get_ifd(tag).update(_directory(tiff, directory[tag]))
            else:
                exif[tag] = directory[tag]
        exif.tobytes()
    except Exception as error:  # as in `load_exif`
        logger.warning("damaged EXIF is left out (%s)", error)
        return Image.Exif()
    return exif


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


def exif_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """Pixels per inch, or None where the tags give no absolute resolution."""
    per_inch = {2: 1.0, 3: 2.54}.get(exif.get(Base.ResolutionUnit, 2))
    across, down = exif.get(Base.XResolution), exif.get(Base.YResolution)
    if per_inch is None or not isinstance(across, Real) or not isinstance(down, Real):
        return None
    if not (0 < float(across) < 1e6 and 0 < float(down) < 1e6):
        return None
    return float(across) * per_inch, float(down) * per_inch


def dump_exif(exif: Image.Exif) -> bytes | None:
    """The TIFF structure without orientation, or None if nothing else is in it."""
    if Base.Orientation in exif:
        del exif[Base.Orientation]
    return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else None


def fit_exif(block: bytes | None, width: int, height: int, dpi: tuple[float, float] | None) -> bytes | None:
    """A copy whose size and resolution tags, where present, describe a picture of this size."""
    exif = load_exif(block)
    details = exif.get_ifd(IFD.Exif) if IFD.Exif in exif else {}  # asking for a missing directory would add it
    for tag, value in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = value
    if Base.XResolution in exif and Base.YResolution in exif and dpi is not None:
        exif[Base.XResolution], exif[Base.YResolution] = dpi
        exif[Base.ResolutionUnit] = 2
    return dump_exif(exif)
