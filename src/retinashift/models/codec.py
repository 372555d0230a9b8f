"""Codecs: between a picture in [-1, 1] and the space in which the chain runs.

`PixelCodec` rearranges pixels and loses nothing; `inference.tiles.LearnedCodec` wraps a trained autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

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


class Codec(Protocol):
    """What every codec has."""

    @property
    def multiple(self) -> int:
        """Both sides of an image must be multiples of it; a latent is that many times smaller."""

    @property
    def lossless(self) -> bool:
        """Whether `decode` is the exact inverse of `encode`: then the chain runs on the pixels themselves."""

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Its parts with weights; none in a lossless codec."""

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the latent, (B, C, H/multiple, W/multiple)."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) -> the image, (B, 3, h*multiple, w*multiple), in about [-1, 1]."""


@dataclass(frozen=True)
class PixelCodec:
    """Space-to-depth: (B, C, H, W) <-> (B, C*f*f, H/f, W/f). Lossless, no weights, so the chain has no ceiling.

    With f equal to the scale factor the chain runs on the low-resolution grid.
    """

    factor: int = 4
    lossless: ClassVar[bool] = True
    networks: ClassVar[tuple[nn.Module, ...]] = ()

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it must be at least 1")

    def __str__(self) -> str:
        return "PixelCodec (lossless, no weights)"

    @property
    def multiple(self) -> int:
        return self.factor

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C*f*f, H/f, W/f). ValueError if H or W is no multiple of f."""
        height, width = image.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"image is {width}x{height}; both sides must be multiples of {self.factor} (crop it)")
        return F.pixel_unshuffle(image, self.factor)

    def decode(self, latent: Tensor) -> Tensor:
        """The exact inverse of `encode`."""
        return F.pixel_shuffle(latent, self.factor)
