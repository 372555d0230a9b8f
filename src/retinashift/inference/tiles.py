"""Pictures in tiles that overlap and are blended without seams; a learned codec on pictures of any size.

Group norms see less in a tile than in the whole picture, so a tile can be a little brighter or darker. Blending makes
that a slope instead of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

WHOLE_UP_TO = 128 * 128
"""Positions of a latent that a learned codec sees as a whole. Its attention grows with the square of the area."""
SIDE, MARGIN = 80, 8
"""Of a larger latent, in positions: what a tile keeps, and how far it reads into its neighbours."""


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
    """The results of `work` on every tile, blended: where tiles overlap, one fades into the other.

    Args:
        work: returns for a tile (B, C, h*scale, w*scale), where h and w are the sides of what the tile reads.
        tiles: of a grid of height x width; only neighbours may overlap.
        scale: positions of the result for each of the grid.

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
    """Rows and columns on a grid that is `scale` times finer."""
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


@dataclass(frozen=True)
class LearnedCodec:
    """A trained autoencoder with a codebook as a codec: `VQCodec` or diffusers' `VQModel`; large pictures by tiles."""

    network: VQModel
    lossless: ClassVar[bool] = False

    def __str__(self) -> str:
        return type(self.network).__name__

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    @property
    def multiple(self) -> int:
        return int(2 ** (len(self.network.config.block_out_channels) - 1))

    def encode(self, image: Tensor, side: int | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the latent, (B, C, H/f, W/f), not quantised.

        Args:
            side: of the tiles in positions of the latent; None decides by size.

        Raises:
            ValueError: H or W is no multiple of f, `multiple`.
        """
        factor = self.multiple
        height, width = image.shape[-2:]
        if height % factor or width % factor:
            raise ValueError(f"image is {width}x{height}; both sides must be multiples of {factor} (pad it)")
        grid = height // factor, width // factor
        tiles = _codec_tiles(*grid, side)
        if not tiles:
            return self.network.encode(image).latents
        return blend_tiles(lambda tile: self.network.encode(_piece(image, tile, factor)).latents, tiles, *grid)

    def decode(self, latent: Tensor, side: int | None = None) -> Tensor:
        """The latent, (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]. `side` as in `encode`."""
        height, width = latent.shape[-2:]
        tiles = _codec_tiles(height, width, side)
        if not tiles:
            return self.network.decode(latent).sample

        def one(tile: Tile) -> Tensor:
            return self.network.decode(_piece(latent, tile, 1)).sample  # (B, 3, n*f, m*f)

        return blend_tiles(one, tiles, height, width, self.multiple)


def _codec_tiles(height: int, width: int, side: int | None) -> list[Tile]:
    """No tiles if the picture is taken as a whole."""
    if side is None and height * width <= WHOLE_UP_TO:
        return []
    if side is not None and side < 4 * MARGIN:  # the last ones may keep half of it, and only neighbours may overlap
        raise ValueError(f"side is {side}; it must be at least {4 * MARGIN}")
    return plan_tiles(height, width, side or SIDE, MARGIN)


def _piece(x: Tensor, tile: Tile, scale: int) -> Tensor:
    rows, columns = scaled(tile.read, scale)
    return x[..., rows, columns]
