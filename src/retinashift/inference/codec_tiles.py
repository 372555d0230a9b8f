"""A learned codec on pictures of any size in bounded memory, without seams.

Up to `WHOLE_UP_TO` the codec sees the picture as a whole. Beyond, its attention would cost more than everything else
(it grows with the square of the area) and its activations would fill the memory; there the picture is cut into tiles
that overlap, and neighbours fade into one another. Tiles are a little brighter or darker than the whole, since group
norms see less of it; the fading makes that a slope instead of a step.
"""

from __future__ import annotations

from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.inference.tiling import Tile, blend_tiles, plan_tiles, scaled

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
    grid = height // factor, width // factor
    tiles = _tiles(*grid, side)
    if not tiles:
        return codec.encode(image).latents
    return blend_tiles(lambda tile: codec.encode(_piece(image, tile, factor)).latents, tiles, *grid)


def decode(codec: VQModel, latent: Tensor, side: int | None = None) -> Tensor:
    """The latent (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]. `side` as in `encode`."""
    height, width = latent.shape[-2:]
    tiles = _tiles(height, width, side)
    if not tiles:
        return codec.decode(latent).sample
    factor = latent_factor(codec)
    return blend_tiles(lambda tile: codec.decode(_piece(latent, tile, 1)).sample, tiles, height, width, factor)


def latent_factor(codec: VQModel) -> int:
    """How many times smaller than the image the latent is."""
    return 2 ** (len(codec.config.block_out_channels) - 1)


def _tiles(height: int, width: int, side: int | None) -> list[Tile]:
    """No tiles if the picture is taken as a whole."""
    if side is None and height * width <= WHOLE_UP_TO:
        return []
    if side is not None and side < 4 * MARGIN:  # the last ones may keep half of it, and two of three must not overlap
        raise ValueError(f"side is {side}; it must be at least {4 * MARGIN}")
    return plan_tiles(height, width, side or SIDE, MARGIN)


def _piece(x: Tensor, tile: Tile, scale: int) -> Tensor:
    rows, columns = scaled(tile.read, scale)
    return x[..., rows, columns]
