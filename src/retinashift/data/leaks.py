"""Photographs that a run would both learn from and be scored on, told by their content."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from retinashift.data.photographs import DataError, FileRef, Item

TRAINED_ON = "trained_on.json"
"""In a checkpoint folder."""
DIGITS = 16
"""Hexadecimal digits of a hash: 64 bits, by which two of a million photographs agree once in 37 million sets."""


def content_hash(ref: FileRef) -> str:
    """SHA-256 of a file's bytes, unpacked if it is gzipped or in a zip; its first `DIGITS` digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with ref.open() as file:
            content = file.read()
        if ref.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
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
