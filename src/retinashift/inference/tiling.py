"""Tiles that overlap, for a learned codec on large pictures (see `codec_tiles`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Tile:
    """A piece of the grid: rows and columns that are read, and those in the middle of them that are kept."""

    read: tuple[slice, slice]
    kept: tuple[slice, slice]


def plan_tiles(height: int, width: int, side: int, margin: int) -> list[Tile]:
    """Tiles that keep every position once, row by row.

    Args:
        height, width: of the grid.
        side: largest side of what a tile keeps, at least 1.
        margin: how far a tile reads beyond what it keeps, cut at the border of the grid.
    """
    if side < 1 or margin < 0:
        raise ValueError(f"side is {side} and margin {margin}; at least 1 and 0 are needed")
    return [
        Tile(
            (_widened(top, bottom, margin, height), _widened(left, right, margin, width)),
            (slice(top, bottom), slice(left, right)),
        )
        for top, bottom in _spans(height, side)
        for left, right in _spans(width, side)
    ]


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """Nearly equal spans of at most `side` that cover 0..length."""
    count = -(-length // side)
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _widened(start: int, stop: int, margin: int, length: int) -> slice:
    return slice(max(0, start - margin), min(length, stop + margin))
