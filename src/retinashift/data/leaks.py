"""Photographs that a run would both learn from and be scored on, told by their content."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinashift.data.photographs import DataError, FileRef, Item, stem_path

TRAINED_ON = "trained_on.json"
"""In a checkpoint folder."""
HELD_OUT = 0.2
"""Share of the photographs that a split by patient holds out, at least."""
DIGITS = 16
"""Hexadecimal digits of a hash: 64 bits, by which two of a million photographs agree once in 37 million sets."""


def content_hash(ref: FileRef) -> str:
    """SHA-256 of a file's bytes, unpacked if it is gzipped or in a zip; its first `DIGITS` digits.

    Raises:
        DataError: the file cannot be read.
    """
    content = ref.read_bytes()
    try:
        content = gzip.decompress(content) if ref.name.lower().endswith(".gz") else content
    except (OSError, zlib.error, EOFError) as error:
        raise DataError(f"{ref.path / ref.member}: cannot be read ({error})") from None
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def content_hashes(items: Sequence[Item]) -> dict[str, FileRef]:
    """The high-resolution photographs by their `content_hash`; of equal ones the first."""
    found: dict[str, FileRef] = {}
    for item in items:
        found.setdefault(content_hash(item.hr), item.hr)
    return found


def write_trained_on(folder: Path, hashes: Iterable[str]) -> None:
    """Keep with a checkpoint the hashes of the photographs it was trained on."""
    (folder / TRAINED_ON).write_text(json.dumps(sorted(set(hashes)), indent=0) + "\n", encoding="utf-8")


def read_trained_on(folder: Path) -> frozenset[str]:
    """The hashes of what a checkpoint, and those it started from, were trained on; none if they are not stated."""
    try:
        found = json.loads((folder / TRAINED_ON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(value for value in found if isinstance(value, str)) if isinstance(found, list) else frozenset()


def split_by_patient(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Photographs to train on, and about one in five to hold out; all of a patient are on one side.

    Those of one `patient_of`, and those of one content, stay together. The content alone decides which are held out.

    Raises:
        DataError: all photographs belong together.
    """
    leader: dict[str, str] = {}

    def first_of(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    hashes = [content_hash(item.hr) for item in items]
    for item, digest in zip(items, hashes, strict=True):
        leader[first_of("patient " + patient_of(item.hr.name))] = first_of("content " + digest)
    groups: dict[str, list[int]] = {}
    for index, digest in enumerate(hashes):
        groups.setdefault(first_of("content " + digest), []).append(index)
    if len(groups) < 2:
        raise DataError("the photographs are all of one patient or content; add others to hold out")
    held_out: set[int] = set()
    for members in sorted(groups.values(), key=lambda members: min(hashes[index] for index in members))[:-1]:
        held_out.update(members)
        if len(held_out) >= HELD_OUT * len(items):
            break
    apart = [(item, index in held_out) for index, item in enumerate(items)]
    return [item for item, out in apart if not out], [item for item, out in apart if out]


def patient_of(name: str) -> str:
    """A photograph's path without what names the eye or the view at its end.

    >>> patient_of("a/12_OD.png"), patient_of("a/12_left-2.jpg"), patient_of("Image_01L.jpg")
    ('a/12', 'a/12', 'image_01')
    """
    return re.sub(r"[ ._-]*(?<![a-z])(od|os|ou|left|right|l|r)([ ._-]?\d)?$", "", stem_path(name).lower())


def check_no_leakage(training: dict[str, FileRef], validation: Sequence[Item]) -> None:
    """Refuse a validation set that shares a photograph with the training set: a file of the same content.

    Args:
        training: as `content_hashes` returns.
        validation: every photograph of it.

    Raises:
        DataError: it names one of them.
    """
    common = [(training[digest], item.hr) for item in validation if (digest := content_hash(item.hr)) in training]
    if common:
        (learned, scored), others = common[0], len(common) - 1
        name = scored.name if learned.name == scored.name else f"{scored.name}, which data has as {learned.name},"
        raise DataError(
            f"validation: {name} is trained on{f', like {others} more' if others else ''}; keep each photograph in "
            "data or in validation, for a score on what was trained on says nothing"
        )
