"""Codecs, between a picture in [-1, 1] and the space in which the chain runs, and the interpolation that makes y0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from retinashift.models.tiles import blend_tiles

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
    networks: ClassVar[tuple[nn.Module, ...]] = ()

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
    def networks(self) -> tuple[nn.Module, ...]:
        """Its parts with weights."""
        return (self.network,)

    @property
    def multiple(self) -> int:
        """f: both sides of an image must be multiples of it; a latent is that many times smaller."""
        return int(2 ** (len(self.network.config.block_out_channels) - 1))

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the latent, (B, C, H/f, W/f), not quantised. ValueError as for `PixelCodec`."""
        factor, size = self.multiple, _grid_of(image, self.multiple)
        if size[0] * size[1] <= WHOLE_UP_TO:
            return self.network.encode(image).latents
        return blend_tiles(lambda cut: self.network.encode(cut(image, factor)).latents, size, SIDE, MARGIN)

    def decode(self, latent: Tensor) -> Tensor:
        """The latent, (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]."""
        height, width = latent.shape[-2:]
        if height * width <= WHOLE_UP_TO:
            return self.network.decode(latent).sample
        return blend_tiles(
            lambda cut: self.network.decode(cut(latent, 1)).sample, (height, width), SIDE, MARGIN, self.multiple
        )


Codec = PixelCodec | LearnedCodec


def _grid_of(image: Tensor, multiple: int) -> tuple[int, int]:
    """Height and width of its latent. ValueError if a side is no multiple."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"image is {width}x{height}; both sides must be multiples of {multiple} (crop or pad it)")
    return height // multiple, width // multiple
