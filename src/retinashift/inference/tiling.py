"""Denoising a picture of any size in bounded memory, by tiles that overlap.

A convolutional denoiser without normalisation sees only `receptive_radius` pixels around each of its outputs. A tile
with that margin on every side therefore gives, in its middle, what the whole picture would have given: tiles are cut
from one state and one noise field, and put side by side again, at every step. There is nothing to blend.
"""

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


def denoise_by_tiles(
    denoise: Callable[[Tensor, Tensor], Tensor], sample: Tensor, lq: Tensor, tiles: list[Tile]
) -> Tensor:
    """`denoise(sample, lq)` of the whole picture, computed tile by tile.

    Args:
        denoise: from a piece of the state (B, C, h, w) and the condition (B, 3, h, w) to the prediction (B, C, h, w).
        sample: the state (B, C, H, W).
        lq: the condition on the same grid, (B, 3, H, W).

    Returns:
        (B, C, H, W)
    """
    result = torch.empty_like(sample)
    for tile in tiles:
        rows, columns = tile.read
        piece = denoise(sample[..., rows, columns], lq[..., rows, columns])  # (B, C, h, w)
        inner = tuple(
            slice(kept.start - read.start, kept.stop - read.start)
            for kept, read in zip(tile.kept, tile.read, strict=True)
        )
        result[..., tile.kept[0], tile.kept[1]] = piece[..., inner[0], inner[1]]
    return result


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """Nearly equal spans of at most `side` that cover 0..length."""
    count = -(-length // side)
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _widened(start: int, stop: int, margin: int, length: int) -> slice:
    return slice(max(0, start - margin), min(length, stop + margin))
