"""Pictures of any size in bounded memory, by tiles that overlap.

A convolutional denoiser without normalisation sees only `receptive_radius` pixels around each of its outputs. A tile
that reads that much more on every side for each step therefore gives, in its middle, what the whole picture would have
given: every tile runs the whole chain by itself, on its window of one noise field, and only the finished picture is
ever held whole. There is nothing to blend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

SMALLEST = 16
"""Side, in input pixels, below which a tile is not halved any more."""


@dataclass(frozen=True)
class Box:
    """A rectangle of the grid: rows top..bottom and columns left..right, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def scaled(self, factor: int) -> Box:
        """The same place in a picture that is `factor` times larger."""
        return Box(self.top * factor, self.bottom * factor, self.left * factor, self.right * factor)

    def inside(self, outer: Box) -> Box:
        """The same place, counted from the corner of `outer`."""
        top, left = outer.top, outer.left
        return Box(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def widened(self, margin: int, within: Box) -> Box:
        """Larger by `margin` on every side, cut at the border of `within`."""
        return Box(
            max(within.top, self.top - margin),
            min(within.bottom, self.bottom + margin),
            max(within.left, self.left - margin),
            min(within.right, self.right + margin),
        )

    def around(self, frame: Box) -> list[Box]:
        """What of `frame` lies outside, in rectangles: above, below, left, right; only those that are not empty."""
        sides = [
            Box(frame.top, self.top, frame.left, frame.right),
            Box(self.bottom, frame.bottom, frame.left, frame.right),
            Box(self.top, self.bottom, frame.left, self.left),
            Box(self.top, self.bottom, self.right, frame.right),
        ]
        return [side for side in sides if side.height > 0 and side.width > 0]

    def halves(self) -> tuple[Box, Box]:
        """Cut across the longer side."""
        if self.height >= self.width:
            middle = (self.top + self.bottom) // 2
            return Box(self.top, middle, self.left, self.right), Box(middle, self.bottom, self.left, self.right)
        middle = (self.left + self.right) // 2
        return Box(self.top, self.bottom, self.left, middle), Box(self.top, self.bottom, middle, self.right)


def grid_within(height: int, width: int, margin: int, largest: int) -> tuple[int, int]:
    """How many tiles down and across read the least in all, if none may read more than `largest` positions.

    Raises:
        MemoryError: not even a tile that keeps one position fits.
    """
    best: tuple[int, int, int] | None = None
    for down in range(1, height + 1):
        rows = min(height, -(-height // down) + 2 * margin)
        columns = largest // rows
        if columns >= width:
            across = 1
        elif columns > 2 * margin:
            across = -(-width // (columns - 2 * margin))
        else:
            continue
        read = (height + 2 * margin * (down - 1)) * (width + 2 * margin * (across - 1))
        if best is None or read < best[0]:
            best = (read, down, across)
    if best is None:
        raise MemoryError(f"a tile needs a margin of {margin} pixels on each side; allow it more memory")
    return best[1], best[2]


def cut(box: Box, down: int, across: int) -> list[Box]:
    """`down` times `across` nearly equal tiles that keep every position of `box` once, row by row."""
    rows, columns = (_edges(*ends) for ends in ((box.top, box.bottom, down), (box.left, box.right, across)))
    return [Box(top, bottom, left, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


def run_tiles(tiles: Sequence[Box], work: Callable[[Box], None], *, halve: bool = True) -> None:
    """`work` on each tile; one that runs out of memory is halved and tried again.

    Raises:
        MemoryError: a tile of the smallest size runs out of memory, too, or `halve` is false.
    """
    pending = list(reversed(tiles))
    while pending:
        tile = pending.pop()
        try:
            work(tile)
            continue
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if not halve:
                raise MemoryError(
                    f"not enough memory for {tile.width}x{tile.height} pixels, which this checkpoint has to see at "
                    "once; crop the picture, or use --device cpu"
                ) from error
            if max(tile.height, tile.width) < 2 * SMALLEST:
                raise MemoryError(
                    f"not enough memory even for a tile of {tile.width}x{tile.height} pixels; close other programs, or "
                    "use --device cpu"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        pending += reversed(tile.halves())


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's own error on a GPU, Python's, or the plain RuntimeError of torch's allocator on the CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)


def _edges(start: int, stop: int, count: int) -> list[int]:
    return [start + (stop - start) * i // count for i in range(count + 1)]
