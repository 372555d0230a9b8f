"""Image files found, read and written. Formats are recognised by content when reading, by suffix when writing."""

import contextvars
import errno
import glob
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retinashift.imaging.failures import first_and_more, one_line, printable
from retinashift.imaging.formats.exif import fit_exif
from retinashift.imaging.formats.jpeg import MAX_DPI
from retinashift.imaging.formats.png import is_srgb
from retinashift.imaging.formats.table import FORMATS, HEAD, Format, format_of_bytes, format_of_name
from retinashift.imaging.photograph import MAX_PIXELS as MAX_PIXELS
from retinashift.imaging.photograph import ImageError as ImageError
from retinashift.imaging.photograph import Photograph as Photograph
from retinashift.imaging.photograph import naming
from retinashift.imaging.provenance import Provenance, find_line, parse_line

logger = logging.getLogger(__name__)

WRITE_SUFFIXES = tuple(suffix for known in FORMATS.values() if known.encode for suffix in known.suffixes)
"""Suffixes of files that are written, in any case."""
READ_SUFFIXES = tuple(suffix for known in FORMATS.values() for suffix in (*known.suffixes, *known.compressed_suffixes))
"""Suffixes that are looked for in folders, in any case."""
_HEADROOM = 64 * 2**20  # bytes of metadata beside 8 bytes a pixel, the most that RGBA of 16 bit takes
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_STALE_SECONDS = 3600
_READING = contextvars.ContextVar("reading", default="")


def _name_file(record: logging.LogRecord) -> bool:
    """Put the file's name in front of what the libraries log while one is read, and make one line of it."""
    if name := _READING.get():
        text = record.getMessage().strip().split("\n")[0]
        record.msg, record.args = f"{printable(name)}: {printable(text.rpartition('Warning: ')[2])}", ()
    return True


for _library in ("tifffile", "pydicom", "py.warnings"):
    logging.getLogger(_library).addFilter(_name_file)


def find_images(inputs: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Image files among files, folders (recursively, links followed) and patterns such as "eyes/**/*.png".

    A file that is named is taken whatever its suffix. In folders and patterns, suffixes are matched in any case, names
    that begin with a dot are left out, and DICOM objects are found whatever they are called. Other files of a folder
    are counted in a warning. In a pattern, parts that exist are taken as they are, brackets included.

    Returns:
        (path, relative output path) sorted by path, each real file once. The relative path is the file's name, or its
        path below the folder, or below the part of the pattern that exists. ImageError for an input without images.
    """
    found: dict[str, tuple[Path, Path]] = {}
    others: list[Path] = []
    for given in inputs:
        for path, relative in _expand(given, others):
            found.setdefault(os.path.realpath(path), (path, relative))
    warn_left_out(sorted(path for path in others if os.path.realpath(path) not in found))
    if not found:
        raise ImageError("no input was given; name files, folders or patterns")
    return sorted(found.values())


def warn_left_out(others: Sequence[object]) -> None:
    """Name the first of the files that are no images, and count the others."""
    if others:
        logger.warning("%s: left out, not among the images that are read", printable(first_and_more(others)))


def own_suffix(path: Path) -> str:
    """Suffix for the result of a file, by its content: ".png" where its own format is only read; "" for no image."""
    with suppress(OSError), open(path, "rb") as file:
        return head_suffix(file.read(HEAD))
    return ""


def head_suffix(head: bytes) -> str:
    """`own_suffix` of a file that begins with these bytes."""
    with suppress(ImageError):
        known = format_of_bytes(head)
        return known.suffixes[0] if known.encode else ".png"
    return ""


def _expand(given: str | Path, others: list[Path]) -> list[tuple[Path, Path]]:
    """Images and their relative output paths; files of a folder that are none are added to `others`."""
    path = Path(given).expanduser()
    try:
        if path.is_file():
            return [(path, Path(path.name))]
        if path.is_dir():
            root, paths = path, _walk(path)
        elif glob.has_magic(str(path)):
            root = next(parent for parent in path.parents if parent.is_dir())
            paths = (root / p for p in glob.glob(str(path.relative_to(root)), root_dir=root, recursive=True))
        else:
            raise ImageError(f"{path}: no such file or folder")
        visible = [p for p in paths if not p.name.startswith(".") and p.is_file()]
        files = [p for p in visible if _is_image(p)]
        if path.is_dir():
            others += set(visible) - set(files)
    except OSError as error:
        raise ImageError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a NUL in the name, or our own error
        raise ImageError(str(error)) from None
    if not files:
        raise ImageError(f"{path}: no image found ({', '.join(READ_SUFFIXES)})")
    return [(file, file.relative_to(root)) for file in files]


def _walk(root: Path) -> Iterator[Path]:
    """Every file below a folder, also in linked folders, each real folder once. OSError if one is unreadable."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise error

    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        below.sort()
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
        else:
            seen.add(real)
            yield from (Path(folder, name) for name in sorted(names))


def _is_image(path: Path) -> bool:
    """By its name; a DICOM object, which out of an archive has no suffix or the end of its UID, by its content."""
    named = path.name.lower().endswith(READ_SUFFIXES)
    return named or (path.name.upper() != "DICOMDIR" and own_suffix(path) == ".dcm")


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Photograph:
    """Read an image file of any format in `formats.table`, upright; palettes become RGB.

    Args:
        max_pixels: limit of width x height, checked in the header, before pixels are decoded.
        page: of a file with several, from 1; such files are refused without it.

    Raises:
        ImageError: missing, above the limit, truncated, damaged or not one of these formats.
    """
    return decode_image(read_bytes(path, max_pixels), str(path), max_pixels, page)


def read_bytes(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a file, no more than that many pixels can take; errors as in `read_image`."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: a folder or device, not an image file")
        check_bytes(str(path), path.stat().st_size, max_pixels)
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None


def check_bytes(name: str, size: int, max_pixels: int) -> None:
    """Raise ImageError for a file of more bytes than that many pixels can take."""
    if size > 8 * max_pixels + _HEADROOM:
        raise ImageError(f"{name}: {size:,} bytes are more than {max_pixels:,} pixels can take")


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Photograph:
    """`read_image` for the bytes of a file; `name` is what errors call it."""
    with _reading(data, name) as known:
        if page not in (None, 1) and not known.pages:
            raise ImageError(f"page {page} is asked for, but {known.name} has one page only")
        photograph = known.decode(data, max_pixels, page)
        photograph = replace(photograph, provenance=photograph.provenance or find_line(data))
    for note in photograph.notes:
        logger.warning("%s: %s", printable(name), printable(note))
    return photograph


def find_provenance(data: bytes, name: str) -> Provenance | None:
    """The record that `encode_image` wrote into a file, not decoded; or None. ImageError for no image file."""
    with _reading(data, name):
        return parse_line(find_line(data))


def write_image(path: str | Path, image: Photograph | np.ndarray, *, overwrite: bool = False, **settings: Any) -> None:
    """`encode_image`, written whole or not at all; other arguments as there.

    Raises:
        ImageError: the file exists and may not be replaced, its folder is missing, or the format cannot hold the image.
        OSError: the disk is full or not writable.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ImageError(f"{path}: exists already; choose another name, or allow overwriting")
    if not path.parent.is_dir():
        raise ImageError(f"{path}: the folder {path.parent} does not exist")
    replace_file(path, encode_image(path, image, **settings))


def encode_image(
    path: str | Path, image: Photograph | np.ndarray, *, like: Photograph | None = None, scale: float = 1,
    provenance: Provenance | None = None, quality: int | None = None,
) -> bytes:  # fmt: skip
    """The bytes of an image file; the suffix of `path` decides the format, which must be one of `WRITE_SUFFIXES`.

    PNG and TIFF lose nothing and are recommended; WebP loses nothing and holds 8-bit colour only; JPEG is written with
    full-resolution colour (4:4:4); PPM holds no metadata except the provenance.

    Args:
        path: its name and suffix only; nothing is written.
        image: pixels as in `Photograph.pixels`, or a photograph.
        like: the photograph that ICC, EXIF and resolution are taken from; without it, `image` itself.
        scale: how much larger `image` is than `like`; the resolution is multiplied by it, so that lengths stay right.
        provenance: written into the file, where `find_provenance` finds it.
        quality: of JPEG, 1 to 100; None is 95. Not for formats that lose nothing.

    Raises:
        ImageError: another suffix, or the format cannot hold the image (such as 16 bit or alpha in JPEG).
    """
    return _encode(path, with_metadata(path, image, like=like, scale=scale, provenance=provenance), quality)


def with_metadata(
    path: str | Path, image: Photograph | np.ndarray, *, like: Photograph | None = None, scale: float = 1,
    provenance: Provenance | None = None,
) -> Photograph:  # fmt: skip
    """The photograph that `encode_image` writes: pixels, and what is true of them of `like`; logs what is left out."""
    path = printable(str(path))
    pixels, like = (image.pixels, like or image) if isinstance(image, Photograph) else (image, like)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    with naming(path):
        photograph = Photograph(np.ascontiguousarray(pixels), provenance=provenance.line() if provenance else "")
    if like is None:
        return photograph
    known = format_of_name(path)
    icc = like.icc if (photograph.channels < 3) == (like.channels < 3) else None
    dpi = None if like.dpi is None else (like.dpi[0] * scale, like.dpi[1] * scale)
    lost = {
        "the ICC profile, which is for another number of colours": like.icc and not icc,
        "how colours look (gamma, primaries); write PNG to keep it":
            known and known.name != "PNG" and like.colour and not icc and not is_srgb(like.colour),
        f"a resolution above JPEG's {MAX_DPI} dpi; write PNG or TIFF to keep it":
            known and known.name == "JPEG" and dpi and max(dpi) > MAX_DPI,
    }  # fmt: skip
    names = [*like.left_out, *(name for name, true in lost.items() if true)]
    if names:
        logger.warning("%s: not carried over from the input: %s", path, printable(", ".join(names)))
    exif = fit_exif(like.exif, pixels.shape[1], pixels.shape[0])
    return replace(photograph, icc=icc, dpi=dpi, exif=exif, colour=like.colour, dicom=like.dicom, frame=like.frame)


def check_target(path: str | Path, like: Photograph, scale: float, quality: int | None = None) -> None:
    """Raise the ImageError that `encode_image` would raise for a result of `like` at `scale`, before it is computed.

    It may be of the suffix, the pixels and their number, the ICC profile, the EXIF block or the DICOM header.
    """
    pixel = np.zeros((1, 1, *like.pixels.shape[2:]), like.pixels.dtype)
    _encode(path, replace(like, pixels=pixel, dpi=None, colour=(), provenance=""), quality, like, scale)


def _encode(
    path: str | Path, photograph: Photograph, quality: int | None, held: Photograph | None = None, scale: float = 1
) -> bytes:
    """The bytes of a file. Its format must hold `held`, by default the photograph itself, upscaled by `scale`."""
    with naming(path):
        known = format_of_name(path)
        if known is None:
            raise ImageError(f"the suffix must be one of {', '.join(WRITE_SUFFIXES)}")
        known.check(held or photograph, scale)
        assert known.encode is not None  # or else `format_of_name` leaves it out
        if quality is None:
            return known.encode(photograph)
        if not known.lossy:
            raise ImageError(f"a quality is for JPEG, and {known.name} loses nothing; leave the quality out")
        return known.encode(photograph, quality)


def replace_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` beside `path`, flush it to disk, and rename: a killed process leaves the old file or the new one.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is false.
        OSError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{os.getpid() % 2**32:08x}{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            flush_to_disk(file.fileno())
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} exists already; give --overwrite to replace it")
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def flush_to_disk(descriptor: int) -> None:
    """`os.fsync`, where the file system can; network mounts answer EINVAL or ENOTSUP, and what was written stays."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def remove_stale_temporaries(folder: Path, ended: Container[int] = ()) -> int:
    """Delete what `replace_file` left in a folder when a process was killed an hour or longer ago; their number.

    Only plain files of this user are deleted. `ended` are processes of this machine that have just ended, whose files
    are deleted whatever their age.
    """
    count, user = 0, getattr(os, "getuid", lambda: 0)()
    for path in (path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)):
        with suppress(OSError):  # another process was faster, or may not be written to
            status = path.lstat()
            over = time.time() - status.st_mtime > _STALE_SECONDS or int(path.name[1:9], 16) in ended
            if over and stat.S_ISREG(status.st_mode) and status.st_uid == user:
                path.unlink()
                count += 1
    return count


@contextmanager
def _reading(data: bytes, name: str) -> Iterator[Format]:
    """The format of a file; whatever its decoder raises, with line breaks or none, becomes one line with its name."""
    context, kind = _READING.set(name), ""
    try:
        known = format_of_bytes(data[:HEAD])
        kind = known.name
        yield known
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to read it") from error
    except Exception as error:
        reason = one_line(str(error)) or type(error).__name__
        if not isinstance(error, ImageError):
            reason = f"truncated or damaged {kind} ({reason})"
        raise ImageError(f"{name}: {reason}") from error
    finally:
        _READING.reset(context)
