"""A denoiser with attention on a picture of any size in bounded memory: predictions by tiles, faded at every step.

The state and its noise are those of the whole picture; only the network's prediction is made piece by piece, and where
tiles overlap two predictions are mixed by a weight that goes smoothly from the one to the other. Group norms see the
tile instead of the picture, so a tile's prediction can be a little brighter or darker; the fading makes that a slope.
A picture that fits into the memory is taken whole.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from retinashift.inference.streaming import out_of_memory
from retinashift.inference.tiling import Tile, blend_tiles, plan_tiles, scaled
from retinashift.models.swin_unet import SwinUNet

MARGIN = 16  # positions that a tile reads beyond what it keeps
MAPS = 45
"""Numbers held for each position and channel of the finest level: measured, realsr v3 at 64, 128 and 256 pixels."""

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def planned_side(net: SwinUNet, memory: int) -> int:
    """Side of the largest square of the state, in whole windows, that so many bytes suffice for, or of the smallest."""
    position = MAPS * net.config.model_channels * net.config.channel_mult[0] * net.dtype.itemsize // 4
    side = int((memory / position) ** 0.5)
    return max(_smallest(net), side // net.size_multiple * net.size_multiple)


def denoise(predict: Predict, net: SwinUNet, sample: Tensor, lq: Tensor, mask: Tensor | None, side: int) -> Tensor:
    """`predict(sample, lq, mask)` of the whole picture, in squares of at most `side` positions of the state.

    Args:
        predict: one call of the network.
        sample: the state, (B, C, h, w). lq, mask: the condition, (B, 3 or 1, h*r, w*r), `mask` perhaps None.
        side: see `planned_side`. Where memory runs out it is halved.

    Raises:
        MemoryError: one window is too much.
    """
    while True:
        try:
            return _denoise(predict, net.lq_ratio, sample, lq, mask, side)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if side <= _smallest(net):
                raise MemoryError("memory does not suffice for one tile of the picture; close other programs") from None
            side = max(_smallest(net), side // 2 // net.size_multiple * net.size_multiple)


def _denoise(predict: Predict, ratio: int, sample: Tensor, lq: Tensor, mask: Tensor | None, side: int) -> Tensor:
    height, width = sample.shape[-2:]
    if height * width <= side * side:
        return predict(sample, lq, mask)

    def one(tile: Tile) -> Tensor:
        (rows, columns), fine = tile.read, scaled(tile.read, ratio)
        hole = None if mask is None else mask[..., fine[0], fine[1]]
        return predict(sample[..., rows, columns], lq[..., fine[0], fine[1]], hole)  # (B, C, n, m)

    return blend_tiles(one, plan_tiles(height, width, side - 2 * MARGIN, MARGIN), height, width)


def _smallest(net: SwinUNet) -> int:
    """Of a tile: its middle must be wide enough that those beside it do not meet."""
    return -(-6 * MARGIN // net.size_multiple) * net.size_multiple
