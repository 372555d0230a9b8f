"""Pictures in tiles that overlap and are blended without seams, for networks that do not stream and learned codecs.

Group norms see less in a tile than in the whole picture, so a tile can be a little brighter or darker. Blending makes
that a slope instead of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from retinashift.inference.memory import out_of_memory

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel

MARGIN = 16
"""Positions of the state that a tile of a network reads beyond what it keeps."""
WHOLE_UP_TO = 128 * 128
"""Positions of a latent that a learned codec sees as a whole. Its attention grows with the square of the area."""
CODEC_SIDE, CODEC_MARGIN = 80, 8
"""Of a larger latent, in positions: what a tile keeps at most, and how far it reads into its neighbours."""

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


def planned_side(net: Any, memory: int) -> int:
    """Side of the largest square of whole windows of the state that fits into `memory` bytes, and no tile too small."""
    side = int((memory / net.bytes_per_position) ** 0.5)
    return max(_smallest(net), side // net.size_multiple * net.size_multiple)


def predict_by_tiles(predict: Callable[[Tensor, Tensor], Tensor], net: Any, x: Tensor, lq: Tensor, side: int) -> Tensor:
    """`predict(x, lq)` of the whole picture, in squares of at most `side` positions of the state.

    Args:
        predict: one call of the network.
        x: the state, (B, C, h, w). lq: the condition, (B, 3, h*r, w*r), r the network's `lq_ratio`.
        side: see `planned_side`. Where memory runs out it is halved.

    Raises:
        MemoryError: one tile of the smallest size is too much.
    """
    height, width = x.shape[-2:]
    while True:
        try:
            if height * width <= side * side:
                return predict(x, lq)
            work = lambda cut: predict(cut(x, 1), cut(lq, net.lq_ratio))  # noqa: E731
            return blend_tiles(work, (height, width), side - 2 * MARGIN, MARGIN)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if side <= _smallest(net):
                raise MemoryError("memory does not suffice for one tile of the picture; close other programs") from None
            side = max(_smallest(net), side // 2 // net.size_multiple * net.size_multiple)


def _smallest(net: Any) -> int:
    """Of a tile: its middle must be wide enough that its neighbours do not meet."""
    return int(-(-6 * MARGIN // net.size_multiple) * net.size_multiple)


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

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the latent, (B, C, H/f, W/f), not quantised.

        Raises:
            ValueError: H or W is no multiple of f, `multiple`.
        """
        factor, (height, width) = self.multiple, image.shape[-2:]
        if height % factor or width % factor:
            raise ValueError(f"image is {width}x{height}; both sides must be multiples of {factor} (pad it)")
        height, width = height // factor, width // factor
        if height * width <= WHOLE_UP_TO:
            return self.network.encode(image).latents
        return blend_tiles(
            lambda cut: self.network.encode(cut(image, factor)).latents,
            (height, width), CODEC_SIDE, CODEC_MARGIN,
        )  # fmt: skip

    def decode(self, latent: Tensor) -> Tensor:
        """The latent, (B, C, h, w), quantised first -> (B, 3, h*f, w*f) in about [-1, 1]."""
        height, width = latent.shape[-2:]
        if height * width <= WHOLE_UP_TO:
            return self.network.decode(latent).sample
        return blend_tiles(
            lambda cut: self.network.decode(cut(latent, 1)).sample,
            (height, width), CODEC_SIDE, CODEC_MARGIN, self.multiple,
        )  # fmt: skip
