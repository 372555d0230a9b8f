"""Pictures in tiles that overlap and are blended without seams.

Group norms see less in a tile than in the whole picture, so a tile can be a little brighter or darker. Blending makes
that a slope instead of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

Cut = Callable[[Tensor, int], Tensor]
"""The part of a picture that belongs to a tile; the number is how many times finer than the grid the picture is."""


def blend_tiles(work: Callable[[Cut], Tensor], size: tuple[int, int], side: int, margin: int, scale: int = 1) -> Tensor:
    """The results of `work` on tiles of a grid, blended: where tiles overlap, one fades into the other.

    Args:
        work: is given a function that cuts the tile out of a picture; returns (B, C, h*scale, w*scale), where h and w
            are the sides of the tile.
        size: height and width of the grid.
        side: largest side of what a tile keeps, at least 1.
        margin: how far a tile reads beyond that; only neighbours may overlap.
        scale: positions of the result for each of the grid.

    Returns:
        (B, C, height*scale, width*scale)
    """
    if side < 1 or margin < 0:
        raise ValueError(f"side is {side} and margin {margin}; at least 1 and 0 are needed")
    total: Tensor | None = None
    for rows, down in _spans(size[0], side, margin, scale):
        for columns, across in _spans(size[1], side, margin, scale):

            def cut(x: Tensor, finer: int, rows: slice = rows, columns: slice = columns) -> Tensor:
                return x[..., _finer(rows, finer), _finer(columns, finer)]

            part = work(cut)  # (B, C, h*scale, w*scale)
            if total is None:
                total = part.new_zeros(*part.shape[:2], *(scale * length for length in size))
            cut(total, scale).add_(part * (down[:, None] * across).to(part))
    assert total is not None
    return total


def _spans(length: int, side: int, margin: int, scale: int) -> Iterator[tuple[slice, Tensor]]:
    """What each tile reads along one side of a grid, and its weights on the finer grid: neighbours add up to 1."""
    count = -(-length // side)
    for start, stop in pairwise(length * i // count for i in range(count + 1)):  # nearly equal, what tiles keep
        first, last = max(0, start - margin), min(length, stop + margin)
        place = torch.arange(first * scale, last * scale) + 0.5
        weight = torch.ones_like(place)
        if first > 0:
            weight = weight * ((place - first * scale) / (2 * (start - first) * scale)).clamp(max=1)
        if last < length:
            weight = weight * ((last * scale - place) / (2 * (last - stop) * scale)).clamp(max=1)
        yield slice(first, last), weight


def _finer(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
