"""Pictures in pieces that overlap, put together again without seams: neighbours fade into one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


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


def blend_tiles(work: Callable[[Tile], Tensor], tiles: list[Tile], height: int, width: int, scale: int = 1) -> Tensor:
    """What `work` makes of every tile, faded together.

    Args:
        work: from a tile to (B, C, h*scale, w*scale), where h and w are the sides of what the tile reads.
        tiles: of a grid of height x width; those further apart than neighbours must not overlap.
        scale: positions of the result to one of the grid.

    Returns:
        (B, C, height*scale, width*scale)
    """
    total: Tensor | None = None
    for tile in tiles:
        part = work(tile)  # (B, C, h*scale, w*scale)
        if total is None:
            total = part.new_zeros(*part.shape[:2], height * scale, width * scale)
        down, across = (
            _ramp(read, kept, scale, side * scale, part)
            for read, kept, side in zip(tile.read, tile.kept, (height, width), strict=True)
        )
        rows, columns = scaled(tile.read, scale)
        total[..., rows, columns] += part * (down[:, None] * across)
    assert total is not None
    return total


def scaled(read: tuple[slice, slice], scale: int) -> tuple[slice, slice]:
    """Rows and columns on a grid that is so many times finer."""
    rows, columns = (slice(part.start * scale, part.stop * scale) for part in read)
    return rows, columns


def _ramp(read: slice, kept: slice, scale: int, length: int, like: Tensor) -> Tensor:
    """Weights along one side of a tile, (n,): up and down over its overlaps, so that neighbours add up to 1."""
    start, stop = read.start * scale, read.stop * scale
    place = torch.arange(start, stop, device=like.device, dtype=torch.float32) + 0.5
    weight = torch.ones_like(place)
    if start > 0:
        weight = weight * ((place - start) / (2 * (kept.start * scale - start))).clamp(max=1)
    if stop < length:
        weight = weight * ((stop - place) / (2 * (stop - kept.stop * scale))).clamp(max=1)
    return weight.to(like.dtype)


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """Nearly equal spans of at most `side` that cover 0..length."""
    count = -(-length // side)
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _widened(start: int, stop: int, margin: int, length: int) -> slice:
    return slice(max(0, start - margin), min(length, stop + margin))
