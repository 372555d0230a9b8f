"""The chain of a network that streams, on a picture of any height: rows of the input in, rows of the sample out.

Every step is a stage that takes rows from the step before it, so the steps overlap like the bands of a printing press.
Neither the state nor its noise is ever held whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from retinashift.diffusion.noise import normal_rows
from retinashift.diffusion.sampling import boost_detail
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.fidelity import REACH
from retinashift.inference.memory import out_of_memory, trim_heap
from retinashift.inference.progress import StepWatch
from retinashift.inference.uncertainty import ScaleMap
from retinashift.models.codec import PixelCodec, Upsampling, upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.light_stream import LightStream, RowQueue
from retinashift.models.uncertainty_head import UncertaintyHead

logger = logging.getLogger(__name__)

BAND_ROWS, LEAST_ROWS = 64, 12
"""More rows at a time are not faster; with fewer, the fixed cost of a band shows."""
FEWEST_ROWS = 4
"""Thinner bands take hardly less memory and up to twice the time: one row is for what is left when memory ran out."""
BAND_PIXELS = 20_000
"""Pixels of a band; wide pictures have thin bands."""
LIBRARY, MORE_KEPT, MORE_ROWS = 64 * 2**20, 1.5, 3
SCARCE = 0.25


class LightChain:
    """Samples of one picture.

    Args:
        net, scheduler: of the checkpoint; the scheduler's steps are set.
        codec, upsampling: how y0 is made.
        lr: (1, 3, h, w) in [-1, 1].
        seed: of the noise; None starts one step at y0, without noise.
        detail_gain: factor of the sample's detail, see `boost_detail`.
        uncertainty: a head, and the map that its scales of the last step are written into.
    """

    def __init__(
        self,
        net: LightNet,
        scheduler: ResShiftScheduler,
        codec: PixelCodec,
        lr: Tensor,
        upsampling: Upsampling,
        seed: int | None,
        detail_gain: float = 1.0,
        uncertainty: tuple[UncertaintyHead, ScaleMap] | None = None,
    ):
        self.net, self.scheduler, self.codec, self.lr = net, scheduler, codec, lr
        self.upsampling, self.seed, self.detail_gain = upsampling, seed, detail_gain
        self.uncertainty = uncertainty

    def bands(self, member: int, memory: int, watch: StepWatch) -> Iterator[Tensor]:
        """One sample in bands from top to bottom, (1, 3, n*f, w*f) float32 in about [-1, 1].

        Args:
            member: number of the sample.
            memory: bytes that it may take.
            watch: told of each step's rows.
        """
        width, steps = self.lr.shape[-1], len(self.scheduler.timesteps)
        rows = planned_rows(width, self.net, memory, steps)
        held, row = _bytes_held(width, self.net, steps)
        if held + rows * row > memory:
            logger.warning(
                "bands of %d rows need about %d MiB, and %d MiB are left of the memory limit; close other programs, or "
                "give a larger --memory", rows, int(held + rows * row) >> 20, memory >> 20,
            )  # fmt: skip
        scarce = self.lr.device.type == "cpu" and is_scarce(width, self.net, memory, steps, rows)
        for band in retry_with_smaller_bands(lambda rows: self._bands(member, rows, watch), rows):
            yield band.float()
            if scarce:  # of maps that come and go the C library keeps several times what is in use
                trim_heap()  # costs a tenth of the time

    def _bands(self, member: int, rows: int, watch: StepWatch) -> Iterator[Tensor]:
        """The sample; `rows` of the input are taken at a time."""
        means = RowQueue()
        if self.uncertainty is not None:
            self.uncertainty[1].restart()
        states = self._start(member, rows)
        for number in range(len(self.scheduler.timesteps)):
            keep = means if number == 0 and self.detail_gain != 1 else None
            states = self._step(states, member, number, rows, watch, keep)
        for x0, _ in states:  # (1, C*f*f, n, w)
            if self.detail_gain != 1:
                x0 = boost_detail(x0, means.take(x0.shape[-2]), self.detail_gain)
            yield self.codec.decode(x0)

    def _start(self, member: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of x_T and of y0, (1, C*f*f, n, w) each."""
        height = self.lr.shape[-2]
        for top in range(0, height, rows):
            y0 = self._y0(top, min(top + rows, height))
            noise = self._noise(member, 0, top, y0)
            yield y0 if noise is None else self.scheduler.init_noise(y0, noise=noise), y0

    def _step(
        self,
        states: Iterator[tuple[Tensor, Tensor]],
        member: int,
        number: int,
        rows: int,
        watch: StepWatch,
        means: RowQueue | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """x_t -> x_{t-1} with its y0, in bands of at most `rows`; estimates of x0 also go into `means` where given."""
        t = int(self.scheduler.timesteps[number])
        last = self.uncertainty is not None and number == len(self.scheduler.timesteps) - 1
        head, scales = self.uncertainty if last and self.uncertainty else (None, None)
        stream = LightStream(self.net, t, self.lr.shape[-2], rows, head, scales.write if scales else None)
        x_waiting, y_waiting = RowQueue(), RowQueue()
        seen = done = 0  # rows
        for x_t, y0 in states:
            x_waiting.push(x_t)
            y_waiting.push(y0)
            lq = self.lr[..., seen : seen + y0.shape[-2], :]
            seen += y0.shape[-2]
            for prediction in stream.push(self.scheduler.scale_model_input(x_t, t) - y0, lq):  # (1, C*f*f, n, w)
                count = prediction.shape[-2]
                x, y = x_waiting.take(count), y_waiting.take(count)
                noise = self._noise(member, number + 1, done, y) if self.scheduler.draws_noise(t) else None
                done += count
                x_prev, x0 = self.scheduler.step(prediction, t, x, y, noise=noise, return_dict=False)
                if means is not None:
                    means.push(x0)
                watch.rows(number, x0, x_prev)
                yield from zip(x_prev.split(rows, dim=-2), y.split(rows, dim=-2), strict=True)

    def _y0(self, top: int, bottom: int) -> Tensor:
        """Rows of the interpolated input in the space of the chain, (1, C*f*f, n, w)."""
        first, last = max(0, top - REACH), min(self.lr.shape[-2], bottom + REACH)
        enlarged = upsample_bicubic(self.lr[..., first:last, :], self.codec.factor, self.upsampling)
        return self.codec.encode(enlarged)[..., top - first : bottom - first, :]

    def _noise(self, member: int, draw: int, top: int, like: Tensor) -> Tensor | None:
        if self.seed is None:
            return None
        _, channels, count, width = like.shape
        return normal_rows(self.seed, (member, draw), top, top + count, channels, width).to(like)


def retry_with_smaller_bands(bands: Callable[[int], Iterator[Tensor]], rows: int) -> Iterator[Tensor]:
    """`bands(rows)`; where memory runs out it begins again with half as many rows, and goes on where it was.

    Raises:
        MemoryError: one row at a time is too much.
    """
    given = 0  # rows of the result
    while True:
        seen = 0
        try:
            for band in bands(rows):
                top, seen = seen, seen + band.shape[-2]
                if seen > given:
                    given, skipped = seen, max(0, given - top)
                    yield band[..., skipped:, :]
            return
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if rows == 1:
                raise MemoryError("memory does not suffice for one row of the picture; close other programs") from None
            rows //= 2
            trim_heap()  # what thicker bands have freed


def planned_rows(width: int, net: LightNet, memory: int, steps: int = 1) -> int:
    """How many rows at a time fit into these bytes: `FEWEST_ROWS` to what `BAND_PIXELS` and `BAND_ROWS` allow."""
    kept, row = _bytes_held(width, net, steps)
    most = min(BAND_ROWS, max(LEAST_ROWS, BAND_PIXELS // width))
    return int(max(FEWEST_ROWS, min(most, (memory - kept) // row)))


def is_scarce(width: int, net: LightNet, memory: int, steps: int, rows: int) -> bool:
    """Whether bands of so many rows take more than `SCARCE` of so many bytes."""
    kept, row = _bytes_held(width, net, steps)
    return kept + rows * row > SCARCE * memory


def _bytes_held(width: int, net: LightNet, steps: int) -> tuple[float, float]:
    """Bytes that are held between bands, and bytes of each row of a band.

    Counted from the code, a row takes six maps of the network's width and eight of the state for each of its pixels,
    and the layers of each step keep two or three rows between bands. What a process holds was measured, for the shipped
    checkpoint in float32 at widths 800 and 2000 in one and four steps, where freed memory goes back after each band:
    at most `MORE_KEPT` times the latter and `MORE_ROWS` times the former, because the allocator cannot use all that is
    free, and `LIBRARY` for the convolutions.
    """
    bytes_per_number = torch.finfo(net.dtype).bits // 8
    state = net.config.image_channels * net.config.factor**2
    kept = width * bytes_per_number * (net.config.width * (8 * net.config.depth + 6) + 4 * state * net.config.depth)
    row = width * bytes_per_number * (6 * net.config.width + 8 * state)
    return LIBRARY + MORE_KEPT * kept * steps, MORE_ROWS * row
