"""Where photographs come from: folders and zips, STARE as downloaded, and pairs of low and high resolution.

Listing is separate from reading: the names of a source are known at once, and a `FileRef` is decoded when asked for.
"""

import gzip
import logging
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

import numpy as np

from retinashift.data.labels import label_mark
from retinashift.imaging.files import READ_SUFFIXES, ImageError, decode_image, read_bytes
from retinashift.imaging.provenance import digest

logger = logging.getLogger(__name__)

# The 20 photographs with manual vessel labels, in the order that defines the small split. 0235 and 0236 look like one
# patient and stay on the same side.
STARE_LABELLED = (
    "im0001 im0002 im0003 im0004 im0005 im0044 im0077 im0081 im0082 im0139 "
    "im0162 im0163 im0235 im0236 im0239 im0240 im0255 im0291 im0319 im0324"
).split()
_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, sorted(READ_SUFFIXES, key=len, reverse=True)))})$", re.IGNORECASE)
NAMED = 3
"""Folders and files that a note about left-out labels names; the rest are counted."""
HELD_OUT = 0.2
"""Share of the photographs that a split by patient holds out, at least."""
DIGITS = 16
"""Hexadecimal digits of a hash: 64 bits, by which two of a million photographs agree once in 37 million sets."""
Split = Literal["all", "train", "test"]


class DataError(ValueError):
    """Photographs that cannot be used; the message names the file or folder and says what to do."""


@dataclass(frozen=True)
class Source:
    """Where photographs come from."""

    path: str
    """Folder or zip."""
    layout: Literal["hr", "pairs", "stare"] = "hr"
    """hr: any folder of high-resolution photographs. pairs: these in `path`, their low-resolution inputs of the same
    names in `lr_path`. stare: im0001 to im0402, in any of STARE's layouts."""
    lr_path: str = ""
    split: Split = "all"
    """stare: the documented split. Others: about one patient in five is the test set, see `split_by_patient`."""
    balance: Literal["photograph", "set", "folder"] = "photograph"
    """What is drawn equally often: every photograph; every set, which is what file names have before their first "_",
    as in drive_21.png; or every folder. Few photographs of a camera then count as much as many of another."""

    def __post_init__(self) -> None:
        if (self.layout == "pairs") != bool(self.lr_path):
            raise DataError("lr_path goes with layout pairs, and layout pairs needs it")


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
        """Its bytes, as a file that can seek."""
        if self.member:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield cast(BinaryIO, member)
        else:
            with open(self.path, "rb") as file:
                yield file

    def read_bytes(self) -> bytes:
        """All of them. DataError if they cannot be read."""
        try:
            if not self.member:
                return read_bytes(self.path)
            with self.open() as member:
                return member.read()
        except ImageError as error:
            raise DataError(str(error)) from None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError(f"{self.path}: {self.member} cannot be read from the zip ({error})") from None

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 or uint16. Grey becomes three equal channels; alpha is refused. DataError if unreadable."""
        data, place = self.read_bytes(), self.path / self.member
        try:
            photograph = decode_image(data, str(place))
        except ImageError as error:
            raise DataError(str(error)) from None
        if photograph.has_alpha:
            raise DataError(f"{place} has an alpha channel; remove it from the photographs")
        pixels = photograph.pixels if photograph.channels == 3 else photograph.pixels[..., None]
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


@dataclass(frozen=True)
class Item:
    """One photograph of a source; `lr` only where the low-resolution input is given."""

    hr: FileRef
    lr: FileRef | None = None


def stem(name: str) -> str:
    """File name without folder and image suffixes: "im0001" of "a/im0001.ppm.gz"."""
    return PurePosixPath(stem_path(name)).name


def stem_path(name: str) -> str:
    """Path without image suffixes."""
    return _SUFFIX.sub("", name)


def by_stem_path(refs: Sequence[FileRef], folder: str | Path) -> dict[str, FileRef]:
    """Files by their path without image suffix. DataError if two differ in their suffix only."""
    found: dict[str, FileRef] = {}
    for ref in refs:
        if (former := found.setdefault(stem_path(ref.name), ref)) is not ref:
            raise DataError(f"{folder} holds both {former.name} and {ref.name}; keep one of that name")
    return found


def find_photographs(folder: str | Path) -> list[FileRef]:
    """The photographs in a folder, recursively, or in a zip; sorted by name. DataError if there is none.

    Labels and masks are left out; a warning counts and names them. So are names that begin with a dot, as a Mac's.
    """
    root = Path(folder).expanduser()
    if root.is_dir():
        refs = [FileRef(path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file()]
    elif root.is_file() and zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            refs = [FileRef(info.filename, root, info.filename) for info in archive.infolist() if not info.is_dir()]
    else:
        raise DataError(f"{root} is neither a folder nor a zip file")
    images = [ref for ref in refs if ref.name.lower().endswith(READ_SUFFIXES)]
    marks = {ref: label_mark(ref.name) for ref in images if not PurePosixPath(ref.name).name.startswith(".")}
    found = sorted((ref for ref, mark in marks.items() if mark is None), key=lambda ref: ref.name)
    labels = [mark for mark in marks.values() if mark is not None]
    if not found:
        rest = f"; {_left_out(labels)}" if labels else ""
        raise DataError(f"{root} holds no photograph ({', '.join(READ_SUFFIXES)}, in any sub-folder){rest}")
    if labels:
        _warn_once("%s: %s", root, _left_out(labels))
    return found


_warn_once = cache(logger.warning)  # a command lists its photographs several times


def _left_out(marks: list[str]) -> str:
    """How many labels and masks are left out, and where they lie.

    >>> _left_out(["masks/", "masks/", "eye_mask.png"])
    'left out 3 labels and masks: eye_mask.png, masks/ (2)'
    """
    counted = sorted(Counter(marks).items())
    named = [f"{mark} ({count})" if mark.endswith("/") else mark for mark, count in counted[:NAMED]]
    rest = sum(count for _, count in counted[NAMED:])
    what = "1 label or mask" if len(marks) == 1 else f"{len(marks)} labels and masks"
    return f"left out {what}: {', '.join(named)}" + (f" and {rest} more" if rest else "")


def list_source(source: Source, section: str = "") -> list[Item]:
    """The photographs of a source, sorted by name; DataError names the file or folder that is missing or out of place.

    With the section of the settings that it comes from, errors about a folder name its setting, such as "data.path".
    """
    found: list[list[FileRef]] = []
    for setting in ("path", "lr_path") if source.layout == "pairs" else ("path",):
        try:
            found.append(find_photographs(getattr(source, setting)))
        except DataError as error:
            raise DataError(f"{section}.{setting}: {error}" if section else str(error)) from None
    if source.layout == "stare":
        return [Item(ref) for ref in _stare_split(found[0], source)]
    items = _match_pairs(found[0], found[1], source) if source.layout == "pairs" else [Item(ref) for ref in found[0]]
    return items if source.split == "all" else split_by_patient(items)[source.split == "test"]


def _stare_split(refs: list[FileRef], source: Source) -> list[FileRef]:
    refs = [ref for ref in refs if re.fullmatch(r"im\d{4}", stem(ref.name).lower())]
    if not refs:
        raise DataError(f"{source.path} holds no STARE photograph (im0001.ppm ... im0402.ppm)")
    numbers = {stem(ref.name).lower() for ref in refs}
    if len(numbers) < len(refs):
        raise DataError(f"{source.path} holds some STARE photograph twice; keep one copy of each")
    if source.split == "all":
        return refs
    test = set(STARE_LABELLED[10:] if numbers <= set(STARE_LABELLED) else STARE_LABELLED)
    chosen = [ref for ref in refs if (stem(ref.name).lower() in test) == (source.split == "test")]
    if not chosen:
        raise DataError(
            f"{source.path} has no photograph of STARE's {source.split} split; {', '.join(sorted(test))} are the test "
            "split: add some, or rename the photographs to have them split by patient"
        )
    return chosen


def _match_pairs(hr: list[FileRef], lr: list[FileRef], source: Source) -> list[Item]:
    """Pairs by name, suffix apart."""
    hr_refs, lr_refs = by_stem_path(hr, source.path), by_stem_path(lr, source.lr_path)
    for key in sorted(hr_refs.keys() ^ lr_refs.keys()):
        present, absent = (source.path, source.lr_path) if key in hr_refs else (source.lr_path, source.path)
        raise DataError(f"{key} is in {present} but has no partner of that name in {absent}")
    return [Item(hr_refs[key], lr_refs[key]) for key in sorted(hr_refs)]


def content_hash(ref: FileRef) -> str:
    """SHA-256 of a file's bytes, unpacked if it is gzipped or in a zip; its first `DIGITS` digits."""
    content = ref.read_bytes()
    try:
        content = gzip.decompress(content) if ref.name.lower().endswith(".gz") else content
    except (OSError, zlib.error, EOFError) as error:
        raise DataError(f"{ref.path / ref.member}: cannot be read ({error})") from None
    return digest(content)[:DIGITS]


def split_by_patient(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Photographs to train on, and about one in five to hold out; all of a patient are on one side.

    Those of one `patient_of`, and those of one content, stay together; DataError if all do. The content alone decides.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to load

    hashes = [content_hash(item.hr) for item in items]
    joined, first = DisjointSet(range(len(items))), dict[tuple[str, str], int]()
    for index, (item, content) in enumerate(zip(items, hashes, strict=True)):
        for key in (("patient", patient_of(item.hr.name)), ("content", content)):
            joined.merge(index, first.setdefault(key, index))
    groups = joined.subsets()
    if len(groups) < 2:
        raise DataError("the photographs are all of one patient or content; add others to hold out")
    held_out: set[int] = set()
    for members in sorted(groups, key=lambda members: min(hashes[index] for index in members))[:-1]:
        held_out.update(members)
        if len(held_out) >= HELD_OUT * len(items):
            break
    training = [item for index, item in enumerate(items) if index not in held_out]
    return training, [items[index] for index in sorted(held_out)]


def patient_of(name: str) -> str:
    """A photograph's path without what names the eye or the view at its end.

    >>> patient_of("a/12_OD.png"), patient_of("a/12_left-2.jpg"), patient_of("Image_01L.jpg")
    ('a/12', 'a/12', 'image_01')
    """
    return re.sub(r"[ ._-]*(?<![a-z])(od|os|ou|left|right|l|r)([ ._-]?\d)?$", "", stem_path(name).lower())
