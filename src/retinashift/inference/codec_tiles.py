"""A learned codec on pictures of any size in bounded memory, without seams.

Up to `WHOLE_UP_TO` the codec sees the picture as a whole. Beyond, its attention would cost more than everything else
(it grows with the square of the area) and its activations would fill the memory; there the picture is cut into tiles
that overlap, and neighbours fade into one another. Tiles are a little brighter or darker than the whole, since group
norms see less of it; the fading makes that a slope instead of a step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.inference.tiling import Tile, plan_tiles

WHOLE_UP_TO = 128 * 128  # positions of the latent
SIDE, MARGIN = 80, 8  # of what a tile keeps, and how far it reads into its neighbours, in positions of the latent


def encode(codec: VQModel, image: Tensor, side: int | None = None) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> the latent (B, C, H/f, W/f), not quantised.

    Args:
        side: of the tiles in positions of the latent; None decides by size.

    Raises ValueError if H or W is no multiple of the codec's factor f.
    """
    factor = latent_factor(codec)
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"image is {width}x{height}; both sides must be multiples of {factor} (pad it)")
    tiles = _tiles(height // factor, width // factor, side)
    return _faded(lambda part: codec.encode(part).latents, image, tiles, factor, 1)


def decode(codec: VQModel, latent: Tensor, side: int | None = None) -> Tensor:
    """The latent (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]. `side` as in `encode`."""
    tiles = _tiles(latent.shape[-2], latent.shape[-1], side)
    return _faded(lambda part: codec.decode(part).sample, latent, tiles, 1, latent_factor(codec))


def latent_factor(codec: VQModel) -> int:
    """How many times smaller than the image the latent is."""
    return 2 ** (len(codec.config.block_out_channels) - 1)


def _tiles(height: int, width: int, side: int | None) -> list[Tile]:
    """No tiles if the picture is taken as a whole."""
    if side is None and height * width <= WHOLE_UP_TO:
        return []
    if side is not None and side < 2 * MARGIN:
        raise ValueError(f"side is {side}; it must be at least {2 * MARGIN}")
    return plan_tiles(height, width, side or SIDE, MARGIN)


def _faded(work: Callable[[Tensor], Tensor], x: Tensor, tiles: list[Tile], scale_in: int, scale_out: int) -> Tensor:
    """`work` on every tile of x, faded together. Scales: positions of x, and of the result, to one of the tiles."""
    if not tiles:
        return work(x)
    height, width = (side // scale_in * scale_out for side in x.shape[-2:])
    total: Tensor | None = None
    for tile in tiles:
        rows, columns = (slice(read.start * scale_in, read.stop * scale_in) for read in tile.read)
        part = work(x[..., rows, columns])  # (B, C, h, w)
        if total is None:
            total = part.new_zeros(*part.shape[:2], height, width)
        down, across = (
            _ramp(read, kept, scale_out, side, part)
            for read, kept, side in zip(tile.read, tile.kept, (height, width), strict=True)
        )
        rows, columns = (slice(read.start * scale_out, read.stop * scale_out) for read in tile.read)
        total[..., rows, columns] += part * (down[:, None] * across)
    assert total is not None
    return total


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
