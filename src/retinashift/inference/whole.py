"""The chain of a network that sees the whole picture, or large tiles of it where memory does not suffice.

The state and its noise are those of the whole picture. Only the network's prediction is made tile by tile, and where
tiles overlap two predictions are blended at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from retinashift.diffusion.noise import noise_of
from retinashift.diffusion.sampling import boost_detail, sample
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.memory import out_of_memory, release_weights
from retinashift.inference.progress import StepWatch
from retinashift.inference.tiles import Tile, blend_tiles, plan_tiles, scaled
from retinashift.models.codec import Codec, Upsampling, upsample_bicubic
from retinashift.models.swin_unet import pad_to_multiple

MARGIN = 16
"""Positions that a tile reads beyond what it keeps."""

Predict = Callable[[Tensor, Tensor], Tensor]


class WholeChain:
    """Samples of one picture. The picture is encoded once, for all its samples.

    Args:
        net, scheduler: of the checkpoint; the scheduler's steps are set.
        codec: into whose space the picture is brought.
        lr: (1, 3, h, w) in [-1, 1].
        scale, upsampling: how y0 is made.
        seed: of the noise; None starts one step at y0, without noise.
        detail_gain: factor of the sample's detail, see `boost_detail`.
    """

    def __init__(
        self,
        net: Any,
        scheduler: ResShiftScheduler,
        codec: Codec,
        lr: Tensor,
        scale: int,
        upsampling: Upsampling,
        seed: int | None,
        detail_gain: float = 1.0,
    ):
        self.net, self.scheduler, self.codec = net, scheduler, codec
        self.seed, self.detail_gain = seed, detail_gain
        self.height, self.width = (side * scale for side in lr.shape[-2:])
        # latents are padded as pictures, before they are encoded; a chain on pixels is padded inside the network
        self.lq = lr if codec.lossless else pad_to_multiple(lr, net.size_multiple * net.lq_ratio)  # (1, 3, h', w')
        self.y0 = codec.encode(upsample_bicubic(self.lq, scale, upsampling))  # (1, C, h", w")
        release_weights(*codec.networks)

    def bands(self, member: int, memory: int, watch: StepWatch) -> Iterator[Tensor]:
        """One sample, (1, 3, H, W) float32 in about [-1, 1], as the only band.

        Args:
            member: number of the sample.
            memory: bytes that it may take.
            watch: told of each step.
        """
        side = planned_side(self.net, memory)

        def predict(x: Tensor, t: int) -> Tensor:
            return predict_by_tiles(lambda x, lq: self.net(x, t, lq=lq).sample, self.net, x, self.lq, side)

        x_t = mean = self.y0
        with self.net.steady():
            draw = None if self.seed is None else noise_of(self.seed, member, self.y0)
            steps = sample(self.scheduler, predict, self.y0, draw)
            for number, (x_t, x0) in enumerate(steps):
                mean = x0 if number == 0 else mean
                watch.whole(number, x0, x_t)
        if self.detail_gain != 1:
            x_t = boost_detail(x_t, mean, self.detail_gain)
        release_weights(self.net)
        image = self.codec.decode(x_t)[..., : self.height, : self.width].float()
        release_weights(*self.codec.networks)
        yield image


def planned_side(net: Any, memory: int) -> int:
    """Side of the largest square of whole windows of the state that fits into `memory` bytes; at least `_smallest`."""
    side = int((memory / net.bytes_per_position) ** 0.5)
    return max(_smallest(net), side // net.size_multiple * net.size_multiple)


def predict_by_tiles(predict: Predict, net: Any, sample: Tensor, lq: Tensor, side: int) -> Tensor:
    """`predict(sample, lq)` of the whole picture, in squares of at most `side` positions of the state.

    Args:
        predict: one call of the network.
        sample: the state, (B, C, h, w). lq: the condition, (B, 3, h*r, w*r), r the network's `lq_ratio`.
        side: see `planned_side`. Where memory runs out it is halved.

    Raises:
        MemoryError: one tile of the smallest size is too much.
    """
    while True:
        try:
            return _tiled(predict, net.lq_ratio, sample, lq, side)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if side <= _smallest(net):
                raise MemoryError("memory does not suffice for one tile of the picture; close other programs") from None
            side = max(_smallest(net), side // 2 // net.size_multiple * net.size_multiple)


def _tiled(predict: Predict, ratio: int, sample: Tensor, lq: Tensor, side: int) -> Tensor:
    height, width = sample.shape[-2:]
    if height * width <= side * side:
        return predict(sample, lq)

    def one(tile: Tile) -> Tensor:
        (rows, columns), fine = tile.read, scaled(tile.read, ratio)
        return predict(sample[..., rows, columns], lq[..., fine[0], fine[1]])  # (B, C, n, m)

    return blend_tiles(one, plan_tiles(height, width, side - 2 * MARGIN, MARGIN), height, width)


def _smallest(net: Any) -> int:
    """Of a tile: its middle must be wide enough that its neighbours do not meet."""
    return int(-(-6 * MARGIN // net.size_multiple) * net.size_multiple)
