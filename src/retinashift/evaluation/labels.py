"""Manual vessel labels beside photographs: in the layouts of STARE and DRIVE, or in a folder that is named."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from retinashift.imaging.files import MAX_PIXELS, ImageError, read_image

FOLDERS = ("labels-ah", "labels", "1st_manual", "manual1", "manual")
"""Looked for beside a photograph and beside its folder, in this order."""

_SUFFIX = re.compile(r"(\.(png|gif|tiff?|pgm|ppm|jpe?g))(\.gz)?$", re.IGNORECASE)


def find_label(photograph: Path, folder: Path | None = None) -> Path | None:
    """The label of a photograph, or None.

    A label's name is the photograph's, or that followed by ".", "_" or "-" and more (`im0001.ah.ppm.gz`), or it shares
    the part before the first of these (`01_manual1.gif` for `01_test.tif`).

    Args:
        photograph: file; only its name and place are used.
        folder: of labels; None looks into `FOLDERS` beside the photograph and beside its folder.

    Raises:
        ImageError: several labels fit, or the named folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of labels")
    beside = [parent / name for parent in (photograph.parent, photograph.parent.parent) for name in FOLDERS]
    stem = _stem(photograph.name)
    for place in [folder] if folder is not None else beside:
        if not place.is_dir():
            continue
        names = sorted(path for path in place.iterdir() if _SUFFIX.search(path.name) and path != photograph)
        for fits in (_begins, _shares_first_part):
            found = [path for path in names if fits(_stem(path.name), stem)]
            if len(found) > 1:
                listed = ", ".join(path.name for path in found[:3])
                raise ImageError(f"{place} holds several labels of {photograph.name}: {listed}; keep one")
            if found:
                return found[0]
    return None


def read_label(path: Path) -> np.ndarray:
    """(H, W) bool, True on vessels: brighter than half. GIF is read too. ImageError as `read_image`."""
    if path.suffix.lower() == ".gif":
        pixels = _read_gif(path)
    else:
        pixels = read_image(path).pixels
    grey = pixels if pixels.ndim == 2 else pixels[..., :3].max(-1)
    return grey > np.iinfo(grey.dtype).max // 2


def _read_gif(path: Path) -> np.ndarray:
    """First frame, (H, W) uint8. The labels of DRIVE are GIF; photographs never are, so `read_image` refuses it."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["GIF"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path}: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
            return np.array(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as GIF ({' '.join(str(error).split())})") from None


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name).lower()


def _begins(label: str, photograph: str) -> bool:
    return label == photograph or (label.startswith(photograph) and label[len(photograph)] in "._-")


def _shares_first_part(label: str, photograph: str) -> bool:
    return re.split(r"[._-]", label)[0] == re.split(r"[._-]", photograph)[0]
