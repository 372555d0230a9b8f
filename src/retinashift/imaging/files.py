"""Image files: find them, read them, write them. Formats are told by content when reading, by suffix when writing."""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retinashift.imaging.dicom.derived import encode_dicom, provenance_of_dicom
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.formats.exif import fit_exif
from retinashift.imaging.formats.jpeg import MAX_DPI, decode_jpeg, encode_jpeg, provenance_of_jpeg
from retinashift.imaging.formats.png import SIGNATURE, decode_png, encode_png, is_srgb, provenance_of_png
from retinashift.imaging.formats.ppm import decode_ppm, encode_ppm, provenance_of_ppm
from retinashift.imaging.formats.tiff import decode_tiff, encode_tiff, provenance_of_tiff
from retinashift.imaging.formats.webp import decode_webp, encode_webp, provenance_of_webp
from retinashift.imaging.photograph import MAX_PIXELS, FileFormat, ImageError, Photograph
from retinashift.imaging.provenance import Provenance, parse_line

__all__ = [
    "MAX_PIXELS", "READ_SUFFIXES", "WRITE_SUFFIXES", "ImageError", "Photograph", "decode_image", "encode_image",
    "find_images", "find_provenance", "format_of", "own_suffix", "read_bytes", "read_image",
    "remove_stale_temporaries", "replace_file", "with_metadata", "write_image",
]  # fmt: skip

logger = logging.getLogger(__name__)

_FORMAT_OF_SUFFIX: dict[str, FileFormat] = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM",
    ".webp": "WebP", ".dcm": "DICOM",
}  # fmt: skip
WRITE_SUFFIXES = tuple(_FORMAT_OF_SUFFIX)
"""What a file that is written may end with, in any case."""
READ_SUFFIXES = (*WRITE_SUFFIXES, ".ppm.gz", ".pgm.gz")
"""What is looked for in folders, in any case."""

_DECODERS: dict[FileFormat, Callable[[bytes, int], Photograph]] = {
    "PNG": decode_png, "PPM": decode_ppm, "WebP": decode_webp,
}  # fmt: skip
_PAGED_DECODERS: dict[FileFormat, Callable[[bytes, int, int | None], Photograph]] = {
    "TIFF": decode_tiff, "DICOM": decode_dicom, "JPEG": decode_jpeg,
}  # fmt: skip
_ENCODERS: dict[FileFormat, Callable[[Photograph], bytes]] = {
    "PNG": encode_png, "JPEG": encode_jpeg, "TIFF": encode_tiff, "PPM": encode_ppm, "WebP": encode_webp,
    "DICOM": encode_dicom,
}  # fmt: skip
_PROVENANCE: dict[FileFormat, Callable[[bytes], str]] = {
    "PNG": provenance_of_png, "JPEG": provenance_of_jpeg, "TIFF": provenance_of_tiff, "PPM": provenance_of_ppm,
    "WebP": provenance_of_webp,
}  # fmt: skip
_READ_MAGIC: tuple[tuple[bytes, FileFormat], ...] = (
    (SIGNATURE, "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"), (b"\x1f\x8b", "PPM"), *((b"P%d" % n, "PPM") for n in range(1, 8)),
)  # fmt: skip
_REFUSED_MAGIC = (
    (0, b"GIF8", "GIF"), (0, b"BM", "BMP"), (4, b"ftyp", "HEIF or AVIF"), (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "PostScript"), (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"), (4, b"jP  ", "JPEG 2000"), (0, b"PK\x03\x04", "zip"),
)  # fmt: skip
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_STALE_SECONDS = 3600
_READ_FORMATS = "PNG, JPEG, TIFF, WebP, PPM and DICOM"
_HEADROOM = 64 * 2**20  # bytes of metadata beside 8 bytes a pixel, the most that RGBA of 16 bit takes


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Photograph:
    """Read PNG, JPEG, TIFF, WebP or binary PPM/PGM (gzipped too).

    Bit depth and channels stay as they are, but palettes become RGB. EXIF orientation is applied.

    Args:
        path: of the file.
        max_pixels: limit of width x height, checked in the header, before pixels are decoded.
        page: of a file with several, from 1; such files are refused without it.

    Raises:
        ImageError: missing, above the limit, truncated, damaged or not one of these formats.
    """
    return decode_image(read_bytes(path, max_pixels), str(path), max_pixels, page)


def read_bytes(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a file, if they are no more than that many pixels can take; errors as in `read_image`."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: a folder or device, not an image file")
        if path.stat().st_size > 8 * max_pixels + _HEADROOM:
            raise ImageError(f"{path}: {path.stat().st_size:,} bytes are more than {max_pixels:,} pixels can take")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Photograph:
    """`read_image` for the bytes of a file; `name` is what errors call it."""
    file_format = _sniff(data, name)
    try:
        if file_format in _PAGED_DECODERS:
            photograph = _PAGED_DECODERS[file_format](data, max_pixels, page)
        elif page in (None, 1):
            photograph = _DECODERS[file_format](data, max_pixels)
        else:
            raise ImageError(f"page {page} is asked for, but {file_format} has one page only")
    except Exception as error:
        raise _named(error, name, file_format) from error
    if file_format in _PROVENANCE:
        photograph = replace(photograph, found=_PROVENANCE[file_format](data))
    for note in photograph.notes:
        logger.warning("%s: %s", name, note)
    return photograph


def find_provenance(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Provenance | None:
    """The record that `encode_image` wrote into a file, from its header; None if there is none.

    Raises:
        ImageError: damaged, not a format that is read, or inflating to more than that many pixels can take.
    """
    file_format = _sniff(data, name)
    try:
        if file_format == "DICOM":
            return parse_line(provenance_of_dicom(data, max_pixels))
        return parse_line(_PROVENANCE[file_format](data))
    except Exception as error:
        raise _named(error, name, file_format) from error


def write_image(
    path: str | Path,
    image: Photograph | np.ndarray,
    *,
    like: Photograph | None = None,
    scale: int = 1,
    overwrite: bool = False,
) -> None:
    """`encode_image`, written whole or not at all.

    Args:
        path: in a folder that exists.
        image: as in `encode_image`, like `like` and `scale`.
        overwrite: replace a file that exists.

    Raises:
        ImageError: the file exists, its folder does not, or the format cannot hold the image.
        OSError: the disk is full or not writable.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ImageError(f"{path}: exists already; choose another name, or allow overwriting")
    if not path.parent.is_dir():
        raise ImageError(f"{path}: the folder {path.parent} does not exist")
    replace_file(path, encode_image(path, image, like=like, scale=scale))


def encode_image(
    path: str | Path,
    image: Photograph | np.ndarray,
    *,
    like: Photograph | None = None,
    scale: int = 1,
    provenance: Provenance | None = None,
) -> bytes:
    """The bytes of an image file; the suffix of `path` decides the format (.png, .jpg, .tif, .webp, .ppm, .pgm).

    PNG and TIFF lose nothing and are recommended; WebP loses nothing and holds 8-bit colour only; JPEG is written with
    quality 95, 4:4:4; PPM holds no metadata but the provenance.

    Args:
        path: its name and suffix only; nothing is written.
        image: pixels as in `Photograph.pixels`, or a photograph.
        like: the photograph that ICC, EXIF and resolution are taken from; without it, `image` itself.
        scale: how much larger `image` is than `like`; the resolution is multiplied by it, so that lengths stay right.
        provenance: written into the file, where `find_provenance` finds it.

    Raises:
        ImageError: another suffix, or the format cannot hold the image (16 bit or alpha in JPEG, alpha in PPM, colour
            in .pgm, grey or 16 bit in WebP).
    """
    path = Path(path)
    file_format = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if file_format is None:
        raise ImageError(f"{path}: the suffix must be one of {', '.join(WRITE_SUFFIXES)}")
    try:
        photograph = with_metadata(path, image, like=like, scale=scale, provenance=provenance)
        if file_format != "PNG" and photograph.colour and not photograph.icc and not is_srgb(photograph.colour):
            logger.warning("%s: not carried over: how colours look (gamma, primaries); write PNG to keep it", path)
        if file_format == "JPEG" and photograph.dpi and max(photograph.dpi) > MAX_DPI:
            logger.warning("%s: not carried over: a resolution above JPEG's %d dpi; write PNG or TIFF", path, MAX_DPI)
        if path.suffix.lower() == ".pgm" and photograph.channels != 1:
            raise ImageError("PGM holds grey only; write .ppm, PNG or TIFF")
        return _ENCODERS[file_format](photograph)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def replace_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` beside `path`, flush it to disk, and rename: a killed process leaves the old file or the new one.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is false.
        OSError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network mounts that cannot flush
                    raise
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} exists already; give --overwrite to replace it")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_stale_temporaries(folder: Path) -> int:
    """Delete what `replace_file` left in a folder when a process was killed an hour or longer ago; their number.

    Only plain files of this user whose names are those of temporary files are deleted.
    """
    count, now = 0, time.time()
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        try:
            status = path.lstat()
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == getattr(os, "getuid", lambda: 0)()
            if ours and _TEMPORARY.fullmatch(path.name) and now - status.st_mtime > _STALE_SECONDS:
                path.unlink()
                count += 1
        except OSError:  # another process was faster, or may not be written to
            continue
    return count


def find_images(inputs: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Image files among files, folders (with all below them) and patterns such as "eyes/**/*.png".

    A file that is named is taken whatever its suffix. In folders and patterns, suffixes are matched in any case, names
    that begin with a dot are left out, and DICOM objects are found whatever they are called.

    Returns:
        (path, relative output path) sorted by path, each file once. The relative path is the file's name, or its path
        below the folder, or below the part of the pattern that has no wildcard.

    Raises:
        ImageError: an input that does not exist or holds no image.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        for path, relative in _expand(given):
            found.setdefault(path, relative)
    if not found:
        raise ImageError("no input was given; name files, folders or patterns")
    return sorted(found.items())


def format_of(path: Path) -> FileFormat | None:
    """What is written to a file of this name; None for a suffix that is not written."""
    return _FORMAT_OF_SUFFIX.get(path.suffix.lower())


def own_suffix(path: Path) -> str:
    """The suffix that a file's content calls for, such as ".dcm"; "" where it is not read or no image."""
    try:
        with open(path, "rb") as file:
            file_format = _sniff(file.read(132), str(path))
    except (OSError, ImageError):
        return ""
    return next(suffix for suffix, known in _FORMAT_OF_SUFFIX.items() if known == file_format)


def _sniff(data: bytes, name: str) -> FileFormat:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[128:132] == b"DICM":  # before the others: the 128 bytes in front of it may look like anything
        return "DICOM"
    for magic, file_format in _READ_MAGIC:
        if data.startswith(magic):
            return file_format
    if not data:
        raise ImageError(f"{name}: an empty file")
    for offset, magic, kind in _REFUSED_MAGIC:
        if data.startswith(magic, offset):
            raise ImageError(f"{name}: {kind} is not read here; {_READ_FORMATS} are")
    raise ImageError(f"{name}: not an image file of a known format; {_READ_FORMATS} are read")


def _named(error: Exception, name: str, file_format: FileFormat) -> ImageError:
    """One line for whatever decoders raise on crafted or damaged bytes, whose values may hold line breaks."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImageError):
        return ImageError(f"{name}: {reason}")
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: not enough memory to read it")
    return ImageError(f"{name}: truncated or damaged {file_format} ({reason})")


def with_metadata(
    path: Path, image: Photograph | np.ndarray, *, like: Photograph | None, scale: int, provenance: Provenance | None
) -> Photograph:
    """The picture with metadata of `like` that is true of it: resolution times scale, a fitting ICC profile.

    What is not carried over is logged; `path` is what messages call the picture. Arguments as in `encode_image`.
    """
    if isinstance(image, Photograph):
        pixels, like = image.pixels, like or image
    else:
        pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    photograph = Photograph(np.ascontiguousarray(pixels), provenance="" if provenance is None else provenance.line())
    if like is None:
        return photograph
    if like.left_out:
        logger.warning("%s: not carried over from the input: %s", path, ", ".join(like.left_out))
    height, width = pixels.shape[:2]
    icc = like.icc
    if icc and (photograph.channels < 3) != (like.channels < 3):
        logger.warning("%s: the ICC profile is left out: it is for another number of colours", path)
        icc = None
    dpi = None if like.dpi is None else (like.dpi[0] * scale, like.dpi[1] * scale)
    exif = fit_exif(like.exif, width, height, scale)
    return replace(photograph, icc=icc, dpi=dpi, exif=exif, colour=like.colour, dicom=like.dicom, frame=like.frame)


def _expand(given: str | Path) -> list[tuple[Path, Path]]:
    path = Path(given).expanduser()
    try:
        if path.is_file():
            return [(path, Path(path.name))]
        if path.is_dir():
            root, files = path, _images(path.rglob("*"))
        elif glob.has_magic(str(path)):
            fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
            root = Path(*path.parts[:fixed])
            files = _images(Path(p) for p in glob.glob(str(path), recursive=True))
        else:
            raise ImageError(f"{path}: no such file or folder")
    except ValueError as error:  # a NUL in the name, or our own error
        raise ImageError(str(error)) from None
    if not files:
        raise ImageError(f"{path}: no image found ({', '.join(READ_SUFFIXES)})")
    return [(file, file.relative_to(root)) for file in files]


def _images(paths: Iterable[Path]) -> list[Path]:
    return [p for p in paths if not p.name.startswith(".") and p.is_file() and (_is_called_image(p) or _is_dicom(p))]


def _is_called_image(path: Path) -> bool:
    return path.name.lower().endswith(READ_SUFFIXES)


def _is_dicom(path: Path) -> bool:
    """Objects out of archives have no suffix, or the end of their UID; a directory of such objects is none."""
    return path.name.upper() != "DICOMDIR" and own_suffix(path) == ".dcm"
