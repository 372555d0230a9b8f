"""Where training photographs come from: STARE as downloaded, folders of HR images, folders of LR/HR pairs.

Listing is separate from reading: a `PhotographSet` knows its names at once and decodes a photograph when it is asked
for, keeping decoded ones up to a stated size.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.files import READ_SUFFIXES, ImageError, decode_image, read_image
from retinashift.training.config import Source

# The 20 photographs with manual vessel labels, in the order that defines the small split. 0235 and 0236 look like one
# patient and stay on the same side.
STARE_LABELLED = (
    "im0001 im0002 im0003 im0004 im0005 im0044 im0077 im0081 im0082 im0139 "
    "im0162 im0163 im0235 im0236 im0239 im0240 im0255 im0291 im0319 im0324"
).split()

NEARLY_BLACK = 16 / 255
"""Of the range from black to white: what is darker is taken for surround."""
BLOCK = 8
"""Side, in pixels, of the squares in which the visible part of a photograph is counted."""

_LABEL_FILE = re.compile(r"\.(ah|vk)\.")
_LABEL_FOLDER = re.compile(r"^(labels|masks?)", re.IGNORECASE)


class DataError(ValueError):
    """Training data that cannot be used; the message names the file or folder and says how to mend it."""


@dataclass(frozen=True)
class FileRef:
    """One file, on disk or inside a zip."""

    name: str
    """Path inside the folder or zip, with forward slashes."""
    path: Path
    member: str = ""
    """Name inside the zip at `path`, or "" for a plain file."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes, to be read from wherever one likes."""
        if not self.member:
            with open(self.path, "rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield cast(BinaryIO, member)

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 or uint16. Grey becomes three equal channels; alpha is refused. DataError if unreadable."""
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive:
                    pixels = decode_image(archive.read(self.member), self.name).pixels
            else:
                pixels = read_image(self.path).pixels
        except ImageError as error:
            raise DataError(str(error)) from None
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.shape[2] in (2, 4):
            raise DataError(f"{self.path / self.member} has an alpha channel; remove it from training images")
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


@dataclass(frozen=True)
class Item:
    """One photograph of a training set; `lr` only where the LR image is given."""

    hr: FileRef
    lr: FileRef | None = None


def stem(name: str) -> str:
    """File name without folder and without image suffixes: "a/im0001.ppm.gz" -> "im0001"."""
    base = PurePosixPath(name).name
    for suffix in sorted(READ_SUFFIXES, key=len, reverse=True):
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def is_label(name: str) -> bool:
    """Whether a file of a STARE or DRIVE folder is a label or mask, not a photograph.

    The folders say so, and STARE's ".ah." and ".vk."; how a file's name begins does not, as patients have names, too.
    """
    *folders, file = PurePosixPath(name).parts
    return bool(_LABEL_FILE.search(file.lower()) or any(_LABEL_FOLDER.match(folder) for folder in folders))


def list_files(folder: str | Path) -> list[FileRef]:
    """Image files under a folder, or inside a zip, recursive, sorted by name.

    Labels and masks are left out, and names that begin with a dot: what a Mac puts beside each file.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    root = Path(folder).expanduser()
    if root.is_dir():
        names = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        refs = [FileRef(name, path) for name, path in names.items()]
    elif root.is_file() and zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            refs = [FileRef(info.filename, root, info.filename) for info in archive.infolist() if not info.is_dir()]
    else:
        raise DataError(f"{root} is neither a folder nor a zip file")
    refs = [ref for ref in refs if not PurePosixPath(ref.name).name.startswith(".")]
    found = sorted(
        (r for r in refs if r.name.lower().endswith(READ_SUFFIXES) and not is_label(r.name)), key=lambda r: r.name
    )
    if not found:
        raise DataError(f"{root} holds no photograph ({', '.join(READ_SUFFIXES)}, in any sub-folder)")
    return found


def list_source(source: Source, scale: int) -> list[Item]:
    """The photographs of a source, sorted by name. DataError names the file that is missing or out of place."""
    if source.layout == "stare":
        return [Item(ref) for ref in _stare_split(list_files(source.path), source)]
    if source.layout == "hr":
        return [Item(ref) for ref in list_files(source.path)]
    return _match_pairs(source, scale)


def _stare_split(refs: list[FileRef], source: Source) -> list[FileRef]:
    refs = [ref for ref in refs if re.fullmatch(r"im\d{4}", stem(ref.name).lower())]
    if not refs:
        raise DataError(f"{source.path} holds no STARE photograph (im0001.ppm ... im0402.ppm)")
    numbers = {stem(ref.name).lower() for ref in refs}
    if len(numbers) < len(refs):
        raise DataError(f"{source.path} holds some STARE photograph twice; keep one copy of each")
    if source.split == "all":
        return refs
    labelled_only = numbers <= set(STARE_LABELLED)
    test = set(STARE_LABELLED[10:] if labelled_only else STARE_LABELLED)
    chosen = [ref for ref in refs if (stem(ref.name).lower() in test) == (source.split == "test")]
    if not chosen:
        raise DataError(f"{source.path} has no photograph of the {source.split} split")
    return chosen


def _match_pairs(source: Source, scale: int) -> list[Item]:
    """Pairs by name, suffix apart. Sizes are checked from the decoded pictures, all of them, before training starts."""
    hr_refs, lr_refs = (_by_name(folder) for folder in (source.path, source.lr_path))
    for key in sorted(hr_refs.keys() ^ lr_refs.keys()):
        present, absent = (source.path, source.lr_path) if key in hr_refs else (source.lr_path, source.path)
        raise DataError(f"{key} is in {present} but has no partner of that name in {absent}")
    items = [Item(hr_refs[key], lr_refs[key]) for key in sorted(hr_refs)]
    for item in items:
        assert item.lr is not None
        (h, w), (lh, lw) = item.hr.read().shape[:2], item.lr.read().shape[:2]
        if (h, w) != (lh * scale, lw * scale):
            raise DataError(
                f"{item.lr.name}: LR is {lw}x{lh}, HR is {w}x{h}; HR must be {lw * scale}x{lh * scale} (x{scale})"
            )
    return items


def _by_name(folder: str) -> dict[str, FileRef]:
    refs: dict[str, FileRef] = {}
    for ref in list_files(folder):
        former = refs.setdefault(stem_path(ref.name), ref)
        if former is not ref:
            raise DataError(f"{folder} holds both {former.name} and {ref.name}; keep one of that name")
    return refs


def stem_path(name: str) -> str:
    """Path without image suffix, so that partners may differ in folder root and file type only."""
    return str(PurePosixPath(name).with_name(stem(name)))


def _group(name: str, balance: str) -> str:
    """The set or the folder that a photograph belongs to."""
    path = PurePosixPath(name)
    return path.name.partition("_")[0] if balance == "set" else str(path.parent)


class PhotographSet(Sequence[str]):
    """Photographs as (3, H, W) uint8 or uint16 tensors, decoded once and kept on `device` up to `cache_gib`."""

    def __init__(
        self,
        items: list[Item],
        *,
        cache_gib: float,
        device: torch.device | str = "cpu",
        balance: Literal["photograph", "set", "folder"] = "photograph",
    ):
        self.items = items
        groups: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault("" if balance == "photograph" else _group(item.hr.name, balance), []).append(index)
        self._groups = list(groups.values())
        self.device = torch.device(device)
        self._left = cache_gib * 2**30
        self._kept: dict[FileRef, Tensor] = {}
        self._seen: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self.items[index].hr.name

    def pick(self, which_set: float, which: float) -> int:
        """The index of a photograph, from two numbers in [0, 1): each as often as `balance` says."""
        group = self._groups[int(which_set * len(self._groups))]
        return group[int(which * len(group))]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._measured(index)[0]

    def has_lr(self, index: int) -> bool:
        """Whether the LR image is given."""
        return self.items[index].lr is not None

    def visible(self, index: int, top: int, left: int, side: int) -> float:
        """The share of a square that is not nearly black, to within its outermost `BLOCK` pixels."""
        (height, width), table = self._measured(index)
        high, low, left, right = (
            min(round(at / BLOCK), math.ceil(most / BLOCK))
            for at, most in ((top, height), (top + side, height), (left, width), (left + side, width))
        )
        area = max(1, (low - high) * (right - left))
        return float(table[low, right] - table[high, right] - table[low, left] + table[high, left]) / area

    def hr(self, index: int) -> Tensor:
        """(3, H, W) on the device."""
        return self._tensor(self.items[index].hr)

    def lr(self, index: int) -> Tensor | None:
        """(3, H/scale, W/scale) on the device, or None where LR is to be made from HR."""
        ref = self.items[index].lr
        return None if ref is None else self._tensor(ref)

    def _measured(self, index: int) -> tuple[tuple[int, int], np.ndarray]:
        """Height and width, and the visible share of `BLOCK` x `BLOCK` squares summed from the upper left corner."""
        if index not in self._seen:
            pixels = self._tensor(self.items[index].hr)
            height, width = pixels.shape[-2:]
            bright = pixels.float().mean(0) > NEARLY_BLACK * torch.iinfo(pixels.dtype).max
            shares = F.avg_pool2d(bright.float()[None], BLOCK, ceil_mode=True)[0].cpu().double().numpy()
            self._seen[index] = (height, width), np.pad(shares.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return self._seen[index]

    def _tensor(self, ref: FileRef) -> Tensor:
        tensor = self._kept.get(ref)
        if tensor is None:
            tensor = torch.from_numpy(np.ascontiguousarray(ref.read().transpose(2, 0, 1))).to(self.device)
            if tensor.nbytes <= self._left:
                self._left -= tensor.nbytes
                self._kept[ref] = tensor
        return tensor
