"""Image files among files, folders and patterns."""

import glob
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinashift.imaging.failures import printable
from retinashift.imaging.formats.table import FORMATS, HEAD, format_of_bytes
from retinashift.imaging.photograph import ImageError

logger = logging.getLogger(__name__)

WRITE_SUFFIXES = tuple(suffix for known in FORMATS.values() if known.encode for suffix in known.suffixes)
"""Suffixes of files that are written, in any case."""
READ_SUFFIXES = tuple(suffix for known in FORMATS.values() for suffix in (*known.suffixes, *known.compressed_suffixes))
"""Suffixes that are looked for in folders, in any case."""


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
    if others := sorted(path for path in others if os.path.realpath(path) not in found):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        logger.warning("%s%s: left out, not among the images that are read", printable(str(others[0])), more)
    if not found:
        raise ImageError("no input was given; name files, folders or patterns")
    return sorted(found.values())


def own_suffix(path: Path) -> str:
    """Suffix for the result of a file, by its content: ".png" where its own format is only read; "" for no image."""
    try:
        with open(path, "rb") as file:
            return suffix_of_bytes(file.read(HEAD))
    except OSError:
        return ""


def suffix_of_bytes(head: bytes) -> str:
    """`own_suffix` of a file that begins with these bytes."""
    try:
        known = format_of_bytes(head)
    except ImageError:
        return ""
    return known.suffixes[0] if known.encode else ".png"


def _expand(given: str | Path, others: list[Path]) -> list[tuple[Path, Path]]:
    """Images and their relative output paths; files of a folder that are none are added to `others`."""
    path = Path(given).expanduser()
    try:
        if path.is_file():
            return [(path, Path(path.name))]
        if path.is_dir():
            root, paths = path, _walk(path)
        elif glob.has_magic(str(path)):
            fixed = next(i for i in range(len(path.parts), -1, -1) if Path(*path.parts[:i]).is_dir())
            root = Path(*path.parts[:fixed])
            pattern = str(Path(*path.parts[fixed:]))
            paths = (root / p for p in glob.glob(pattern, root_dir=root, recursive=True))
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


def _walk(root: Path) -> Iterable[Path]:
    """Every file below a folder, also in linked folders, each real folder once. Raises OSError if one is unreadable."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise error

    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(below)
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(names))
        seen.add(real)


def _is_image(path: Path) -> bool:
    """By its name; a DICOM object, which out of an archive has no suffix or the end of its UID, by its content.

    A directory of such objects is none.
    """
    if path.name.lower().endswith(READ_SUFFIXES):
        return True
    return path.name.upper() != "DICOMDIR" and own_suffix(path) == ".dcm"
