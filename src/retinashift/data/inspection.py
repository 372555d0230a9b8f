"""Check photographs before a run: their sizes, and whether their files are whole, without decoding most of them.

Header and end of a usual file tell both. An unusual file is decoded, and the decoder has the last word: no good file is
refused, and a truncated one is named before the first step, not when it is drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import BinaryIO

from PIL import Image, ImageFile

from retinashift.data.photographs import DataError, FileRef, Item
from retinashift.imaging.failures import explain
from retinashift.imaging.files import MAX_PIXELS

Check = Callable[[str, tuple[int, int]], None]

_FORMATS = ("PNG", "JPEG", "PPM")  # others are decoded
_MODES = ("L", "RGB", "I;16", "I;16B")
_ORIENTATION = 274  # tag of an EXIF block
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


def check_photographs(items: Sequence[Item], scale: int, check_size: Check | None = None) -> None:
    """Refuse a set with a photograph that cannot be read or used.

    Args:
        items: photographs; a given low-resolution input must be exactly `scale` times smaller.
        scale: whole number, at least 1.
        check_size: called with the name and (height, width) of each; it raises DataError for one that is too small.

    Raises:
        DataError: it names the first such photograph, and says how many more there are.
    """
    flaws = []
    for hr, lr in ((item.hr, item.lr) for item in items):
        try:
            height, width = measured(hr)
            if check_size is not None:
                check_size(hr.name, (height, width))
            if lr is not None:
                low, narrow = measured(lr)
                if (height, width) != (low * scale, narrow * scale):
                    needed = f"{narrow * scale}x{low * scale} (x{scale})"
                    raise DataError(f"{lr.name}: LR is {narrow}x{low}, HR is {width}x{height}; HR must be {needed}")
        except Exception as error:
            failure = explain(error)
            flaws.append(failure.text if isinstance(error, DataError) else f"{hr.name}: {failure.text}")
    if flaws:
        others = f" ({len(flaws) - 1} more cannot be used either)" if len(flaws) > 1 else ""
        raise DataError(flaws[0] + others)


def measured(ref: FileRef) -> tuple[int, int]:
    """Height and width in pixels.

    Raises:
        DataError: the file is missing, truncated, damaged or of a kind that is not read.
    """
    height, width = _from_header(ref) or ref.read().shape[:2]
    return height, width


def _from_header(ref: FileRef) -> tuple[int, int] | None:
    """Height and width by header and end of a file; None where these leave room for doubt."""
    try:
        with ref.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            with Image.open(file, formats=_FORMATS) as picture:
                known = picture.format == "JPEG" or "exif" in picture.info  # PNG: it may follow the pixels
                usual = (
                    picture.mode in _MODES and "transparency" not in picture.info
                    and getattr(picture, "n_frames", 1) == 1 and picture.width * picture.height <= MAX_PIXELS
                    and not (known and picture.getexif().get(_ORIENTATION, 1) != 1)  # which the decoder applies
                )  # fmt: skip
                # a member of a zip is whole, since the list of members comes after it
                if usual and (ref.member or _is_whole(file, picture)):
                    return picture.height, picture.width
    except Exception:  # whatever Pillow makes of a damaged header: the decoder says it in better words
        pass
    return None


def _is_whole(file: BinaryIO, picture: ImageFile.ImageFile) -> bool:
    """Whether the file reaches as far as its header says."""
    length = file.seek(0, 2)
    if picture.format in _LAST_BYTES:
        last = _LAST_BYTES[picture.format]
        file.seek(max(0, length - len(last)))
        return file.read() == last
    codec, _, start, _ = picture.tile[0]
    return codec == "raw" and start + picture.width * picture.height * len(picture.getbands()) <= length
