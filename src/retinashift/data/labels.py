"""Manual vessel labels: which files are label drawings, which label belongs to a photograph, and its pixels."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from retinashift.imaging.files import MAX_PIXELS, ImageError, read_image

FOLDERS = ("labels-ah", "labels", "1st_manual", "manual1", "manual")
"""Looked for beside a photograph and beside its folder, in this order."""
ENDINGS = (".ah", "_manual1", "_1stHO", "_manual", "_labels", "_label", "_vessels")
"""What a label of the first observer has after the photograph's name, where both lie in one folder; in this order."""

# Whole words only: Maskell, Manuela and labelled are no label words. Digits and separators end a word.
_LABEL_FOLDER = re.compile(
    r"(?<![a-z])(labels?|(fundus)?masks?|manual|ground[ _-]?truths?|gt|annotations?|segmentations)(?![a-z])",
    re.IGNORECASE,
)
_LABEL_FILE = re.compile(
    r"[^ ._-][ ._-]+(labels?|masks?|manual|ground[ _-]?truths?|gt|annotations?|vessels?)\d*$"  # 21_manual1, 01_dr_mask
    r"|.\.(ah|vk)$"  # im0001.ah
    r"|._(1st|2nd)HO$"  # Image_01L_1stHO
    r"|.SoftMap$",  # drishtiGS_004_ODsegSoftMap
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"(\.(png|gif|tiff?|pgm|ppm|jpe?g|webp|dcm))(\.gz)?$", re.IGNORECASE)


def label_mark(name: str) -> str | None:
    """What tells that a file of a data set is a label or mask: its outermost label folder, or its name; else None.

    The layouts of DRIVE, STARE, HRF, CHASE, IDRiD, DRISHTI-GS, REFUGE and their like are known. How a file's name
    begins says nothing, because patients have names too.

    >>> label_mark("test/1st_manual/01_manual1.gif"), label_mark("01_dr_mask.tif"), label_mark("Maskell_OD.png")
    ('test/1st_manual/', '01_dr_mask.tif', None)
    """
    *folders, file = PurePosixPath(name).parts
    for depth, folder in enumerate(folders, 1):
        if _LABEL_FOLDER.search(folder):
            return "/".join(folders[:depth]) + "/"
    return name if _LABEL_FILE.search(_SUFFIX.sub("", file)) else None


def find_label(photograph: Path, folder: Path | None = None) -> Path | None:
    """The label of a photograph by the first observer, or None.

    In a folder of labels, a label's name is the photograph's, or that followed by ".", "_" or "-" and more
    (`im0001.ah.ppm.gz`), or it shares the part before the first of these (`01_manual1.gif` for `01_test.tif`). Beside
    the photograph itself it must end as `ENDINGS` says (`Image_01L_1stHO.png` for `Image_01L.jpg`).

    Without a folder of labels, `FOLDERS` beside the photograph and beside its folder are searched, then its own folder.
    ImageError if several labels fit, or the named folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of labels")
    stem = _stem(photograph.name)
    names = [rf"(?s){re.escape(name)}([._-].*)?" for name in (stem, re.split(r"[._-]", stem)[0])]
    if folder is not None:
        searched = [(folder, names)]
    else:
        parents = photograph.parent, photograph.parent.parent
        searched = [(parent / name, names) for parent in parents for name in FOLDERS]
        searched.append((photograph.parent, [re.escape(stem + ending.lower()) for ending in ENDINGS]))
    for place, patterns in searched:
        files = [path for path in sorted(place.iterdir()) if _SUFFIX.search(path.name)] if place.is_dir() else []
        for pattern in patterns:
            found = [path for path in files if path != photograph and re.fullmatch(pattern, _stem(path.name))]
            if len(found) > 1:
                listed = ", ".join(path.name for path in found[:3])
                raise ImageError(f"{place} holds several labels of {photograph.name}: {listed}; keep one")
            if found:
                return found[0]
    return None


def read_label(path: Path) -> np.ndarray:
    """(H, W) bool, True on vessels: brighter than half. GIF is read too. ImageError as `read_image`."""
    pixels = _read_gif(path) if path.suffix.lower() == ".gif" else read_image(path).pixels
    grey = pixels if pixels.ndim == 2 else pixels[..., :3].max(-1)
    return grey > np.iinfo(grey.dtype).max // 2


def _read_gif(path: Path) -> np.ndarray:
    """First frame, (H, W) uint8. The labels of DRIVE are GIF; photographs never are, so `read_image` refuses it."""
    try:
        with Image.open(path, formats=["GIF"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path}: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
            return np.array(image.convert("L"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as GIF ({' '.join(str(error).split())})") from None


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name).lower()
