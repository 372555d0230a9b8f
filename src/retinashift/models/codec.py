"""Codecs, between a picture in [-1, 1] and the space of the chain, the interpolation that makes y0, and tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

WHOLE_UP_TO = 128 * 128
"""Positions of a latent that a learned codec sees as a whole. Its attention grows with the square of the area."""
SIDE, MARGIN = 80, 8
"""Of a larger latent, in positions: what a tile keeps at most, and how far it reads into its neighbours."""
Upsampling = Literal["pillow", "torch"]


def upsample_bicubic(lr: Tensor, scale: int, convention: Upsampling = "pillow") -> Tensor:
    """Bicubic interpolation by an integer factor, (B, C, h, w) -> (B, C, h*scale, w*scale), not clamped.

    "pillow" is the kernel a = -0.5 of Pillow (and MATLAB); "torch" is a = -0.75, which the official ResShift uses.
    """
    if scale == 1:
        return lr
    large = F.interpolate(
        lr.float(), scale_factor=scale, mode="bicubic", antialias=convention == "pillow", align_corners=False
    )  # in float32: half precision would round the picture itself, and the CPU has no such kernel
    return large.to(lr.dtype)


def upsample_rows(lr: Tensor, top: int, bottom: int, scale: int, convention: Upsampling = "pillow") -> Tensor:
    """Rows of `lr`, (B, C, h, w), as `upsample_bicubic` of the whole has them, (B, C, (bottom-top)*scale, w*scale)."""
    first, last = max(0, top - 2), min(lr.shape[-2], bottom + 2)  # the kernel looks two pixels far
    large = upsample_bicubic(lr[..., first:last, :], scale, convention)
    return large[..., (top - first) * scale : (bottom - first) * scale, :]


@dataclass(frozen=True)
class PixelCodec:
    """Space-to-depth: (B, C, H, W) <-> (B, C*f*f, H/f, W/f). Lossless, no weights, so the chain has no ceiling.

    With f equal to the scale factor the chain runs on the low-resolution grid.
    """

    factor: int = 4
    lossless: ClassVar[bool] = True
    """Whether `decode` is the exact inverse of `encode`: then the chain runs on the pixels themselves."""

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it must be at least 1")

    def __str__(self) -> str:
        return "PixelCodec (lossless, no weights)"

    @property
    def multiple(self) -> int:
        """Both sides of an image must be multiples of it; a latent is that many times smaller."""
        return self.factor

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C*f*f, H/f, W/f). ValueError if H or W is no multiple of f."""
        _grid_of(image, self.factor)
        return F.pixel_unshuffle(image, self.factor)

    def decode(self, latent: Tensor) -> Tensor:
        """The exact inverse of `encode`."""
        return F.pixel_shuffle(latent, self.factor)


@dataclass(frozen=True)
class LearnedCodec:
    """A trained autoencoder with a codebook, `VQCodec` or diffusers' `VQModel`; large pictures by tiles."""

    network: VQModel
    lossless: ClassVar[bool] = False

    def __str__(self) -> str:
        return type(self.network).__name__

    @property
    def multiple(self) -> int:
        """f: both sides of an image must be multiples of it; a latent is that many times smaller."""
        return int(2 ** (len(self.network.config.block_out_channels) - 1))

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the latent, (B, C, H/f, W/f), not quantised. ValueError as for `PixelCodec`."""
        image = image.contiguous()  # a picture's channels may lie innermost
        return _by_tiles(lambda x: self.network.encode(x).latents, image, self.multiple, 1)

    def decode(self, latent: Tensor) -> Tensor:
        """The latent, (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]."""
        return _by_tiles(lambda z: self.network.decode(z).sample, latent, 1, self.multiple)


Codec = PixelCodec | LearnedCodec


def _grid_of(image: Tensor, multiple: int) -> tuple[int, int]:
    """Height and width of its latent. ValueError if a side is no multiple."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"image is {width}x{height}; both sides must be multiples of {multiple} (crop or pad it)")
    return height // multiple, width // multiple


def _by_tiles(work: Callable[[Tensor], Tensor], x: Tensor, finer: int, scale: int) -> Tensor:
    """`work(x)`, by tiles if the grid is large. x is `finer` and the result `scale` times as fine as the grid."""
    size = _grid_of(x, finer)
    if size[0] * size[1] <= WHOLE_UP_TO:
        return work(x)
    return blend_tiles(lambda cut: work(cut(x, finer)), size, SIDE, MARGIN, scale)


Cut = Callable[[Tensor, int], Tensor]
"""The part of a picture that belongs to a tile; the number is how many times finer than the grid the picture is."""


def blend_tiles(work: Callable[[Cut], Tensor], size: tuple[int, int], side: int, margin: int, scale: int = 1) -> Tensor:
    """The results of `work` on tiles of a grid, blended: where tiles overlap, one fades into the other.

    Group norms see less in a tile than in the whole picture, so a tile can be a little brighter or darker; blending
    makes that a slope instead of a step.

    Args:
        work: is given a function that cuts the tile, (h, w), out of a picture; returns (B, C, h*scale, w*scale).
        size: height and width of the grid; the result is (B, C, height*scale, width*scale).
        side: largest side of what a tile keeps, at least 1.
        margin: how far a tile reads beyond that, at least 0; only neighbours may overlap.
    """
    total: Tensor | None = None
    for (rows, down), (columns, across) in product(*(_spans(length, side, margin, scale) for length in size)):

        def cut(x: Tensor, finer: int, rows: slice = rows, columns: slice = columns) -> Tensor:
            high, wide = (slice(finer * span.start, finer * span.stop) for span in (rows, columns))
            return x[..., high, wide]

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
