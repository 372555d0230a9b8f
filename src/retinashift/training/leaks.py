"""Photographs that a run would learn from and be scored on."""

from __future__ import annotations

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from retinashift.training.ranges import ConfigError
from retinashift.training.sources import FileRef, Item


def check_apart(training: Sequence[Item], validation: Sequence[Item]) -> None:
    """Refuse a validation set that shares a photograph with the training set: the same file, or one of the same bytes.

    Raises:
        ConfigError: it names one of them.
    """
    common = _same_place(training, validation) or _same_bytes(training, validation)
    if common:
        (learned, scored), others = common[0], len(common) - 1
        name = scored.name if learned.name == scored.name else f"{scored.name}, which data has as {learned.name},"
        raise ConfigError(
            f"validation: {name} is trained on{f', like {others} more' if others else ''}; keep each photograph in "
            "data or in validation, for a score on what was trained on says nothing"
        )


def _same_place(training: Sequence[Item], validation: Sequence[Item]) -> list[tuple[FileRef, FileRef]]:
    places = {(item.hr.path.resolve(), item.hr.member): item.hr for item in training}
    found = ((places.get((item.hr.path.resolve(), item.hr.member)), item.hr) for item in validation)
    return [(learned, scored) for learned, scored in found if learned is not None]


def _same_bytes(training: Sequence[Item], validation: Sequence[Item]) -> list[tuple[FileRef, FileRef]]:
    """Only files of one length are read, and only those of one checksum compared."""
    common = []
    learned_by_length = _by_length(item.hr for item in training)
    for length, scored in _by_length(item.hr for item in validation).items():
        learned = learned_by_length.get(length, [])
        by_checksum = {_checksum(ref): ref for ref in scored} if learned else {}
        for ref in learned:
            twin = by_checksum.get(_checksum(ref))
            if twin is not None and _content(ref) == _content(twin):
                common.append((ref, twin))
    return common


def _by_length(refs: Iterable[FileRef]) -> dict[int, list[FileRef]]:
    found: dict[int, list[FileRef]] = defaultdict(list)
    for ref in refs:
        found[_facts(ref)[0]].append(ref)
    return found


def _facts(ref: FileRef) -> tuple[int, int | None]:
    """Length in bytes, and the checksum where a zip has it."""
    if not ref.member:
        return ref.path.stat().st_size, None
    with zipfile.ZipFile(ref.path) as archive:
        info = archive.getinfo(ref.member)
    return info.file_size, info.CRC


def _checksum(ref: FileRef) -> int:
    known = _facts(ref)[1]
    return zlib.crc32(_content(ref)) if known is None else known


def _content(ref: FileRef) -> bytes:
    with ref.open() as file:
        return file.read()
