"""Checks of photographs before a run: files that are whole and large enough, and none both learned and scored.

Header and end of a usual file tell its size and whether it is whole. An unusual file is decoded, and the decoder has
the last word: no good file is refused, and a truncated one is named before the first step, not when it is drawn.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from retinashift.data.photographs import DataError, FileRef, Item, content_hash
from retinashift.imaging.failures import explain
from retinashift.imaging.files import MAX_PIXELS

TRAINED_ON = "trained_on.json"
"""In a checkpoint folder: the hashes of what it was trained on."""
Check = Callable[[str, tuple[int, int]], None]

_FORMATS = ("PNG", "JPEG", "PPM")  # others are decoded
_MODES = ("L", "RGB", "I;16", "I;16B")
_ORIENTATION = 274  # tag of an EXIF block
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


def check_photographs(items: Sequence[Item], scale: int, check_size: Check | None = None) -> None:
    """Refuse a set with a photograph that cannot be read or used: DataError names the first and counts the others.

    Args:
        items: photographs; a given low-resolution input must be exactly `scale` times smaller.
        check_size: called with the name and (height, width) of each; it raises DataError for one that is too small.
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
            text = explain(error).text
            flaws.append(text if isinstance(error, DataError) else f"{hr.name}: {text}")
    if flaws:
        others = f" ({len(flaws) - 1} more cannot be used either)" if len(flaws) > 1 else ""
        raise DataError(flaws[0] + others)


def measured(ref: FileRef) -> tuple[int, int]:
    """Height and width in pixels. DataError for a file that is missing, truncated, damaged or not read."""
    height, width = _from_header(ref) or ref.read().shape[:2]
    return height, width


def _from_header(ref: FileRef) -> tuple[int, int] | None:
    """Height and width by header and end of a file; None where these leave room for doubt, as in damaged files."""
    with suppress(Exception), ref.open() as file, warnings.catch_warnings():
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
    return None


def _is_whole(file: BinaryIO, picture: ImageFile.ImageFile) -> bool:
    """Whether the file reaches as far as its header says."""
    length = file.seek(0, 2)
    if last := _LAST_BYTES.get(picture.format or ""):
        file.seek(max(0, length - len(last)))
        return file.read() == last
    codec, _, start, _ = picture.tile[0]
    return codec == "raw" and start + picture.width * picture.height * len(picture.getbands()) <= length


def content_hashes(items: Sequence[Item]) -> dict[str, FileRef]:
    """The high-resolution photographs by their `content_hash`; of equal ones the first."""
    return {content_hash(item.hr): item.hr for item in reversed(items)}


def write_trained_on(folder: Path, hashes: Iterable[str]) -> None:
    """Keep with a checkpoint the hashes of the photographs it was trained on."""
    (folder / TRAINED_ON).write_text(json.dumps(sorted(set(hashes)), indent=0) + "\n", encoding="utf-8")


def read_trained_on(folder: Path) -> frozenset[str]:
    """The hashes of what a checkpoint, and those it started from, were trained on; none if they are not stated."""
    found = None
    with suppress(OSError, ValueError):
        found = json.loads((folder / TRAINED_ON).read_text(encoding="utf-8"))
    return frozenset(value for value in found if isinstance(value, str)) if isinstance(found, list) else frozenset()


def check_no_leakage(training: dict[str, FileRef], validation: Sequence[Item]) -> None:
    """DataError for a validation set with a file of the same content as one of the `content_hashes` in training."""
    common = [(training[digest], item.hr) for item in validation if (digest := content_hash(item.hr)) in training]
    if common:
        (learned, scored), others = common[0], len(common) - 1
        name = scored.name if learned.name == scored.name else f"{scored.name}, which data has as {learned.name},"
        raise DataError(
            f"validation: {name} is trained on{f', like {others} more' if others else ''}; keep each photograph in "
            "data or in validation, for a score on what was trained on says nothing"
        )
