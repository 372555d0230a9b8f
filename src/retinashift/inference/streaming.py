"""The chain of a `LightNet` on a picture of any size: rows of x_T go in at the top, rows of x0 come out below.

Every step is a stage that takes rows from the step before it, so that steps overlap like the bands of a printing
press: the state is never held whole, nor is the noise, which is drawn where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from retinashift.diffusion.noise import normal_rows
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.fidelity import REACH
from retinashift.inference.memory import give_back
from retinashift.models.codec import PixelCodec, Upsampling, upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.light_stream import LightStream, Needed, RowQueue, Rows

BAND_ROWS, LEAST_ROWS = 64, 12
"""More rows at a time are not faster; with fewer, what a band costs beside its pixels shows."""
BAND_PIXELS = 20_000
"""Bands of wide pictures are as thin as this, since the columns of a thin band follow the eye more closely."""
LIBRARY, MORE_KEPT, MORE_ROWS = 64 * 2**20, 1.5, 3
SCARCE = 0.25
Observer = Callable[[int, Tensor, Tensor], None]
State = tuple[Rows, Rows]
"""Rows of x_t and of y0."""


class LightChain:
    """Samples of one picture.

    Args:
        net, scheduler: of the checkpoint; the scheduler's steps are set.
        lr: (1, 3, h, w) in [-1, 1].
        needed: the columns of each row that the network is to compute. All others are y0, plain enlargement: a step
            leaves y0 and its noise there, which is what later steps see of the surround.
        codec, upsampling: how y0 is made.
        seed, member: from which the noise comes.
        detail_gain: what the detail of the sample is multiplied by, see `amplified`.
        scarce: memory is, so what one band no longer needs goes back to the system before the next, which costs a
            tenth of the time.
        observer: told the number of a step and its rows of x0 and x_t, (1, C*f*f, n, w).
    """

    def __init__(
        self,
        net: LightNet,
        scheduler: ResShiftScheduler,
        lr: Tensor,
        needed: Needed,
        codec: PixelCodec,
        upsampling: Upsampling,
        seed: int,
        member: int,
        detail_gain: float = 1.0,
        scarce: bool = False,
        observer: Observer | None = None,
    ):
        self.net, self.scheduler, self.lr, self.needed = net, scheduler, lr, needed
        self.codec, self.upsampling, self.seed, self.member = codec, upsampling, seed, member
        self.detail_gain, self.scarce, self.observer = detail_gain, scarce, observer

    def bands(self, rows: int) -> Iterator[Tensor]:
        """The sample, (1, 3, n*f, w*f) in [-1, 1], top to bottom; `rows` of the input are taken at a time."""
        timesteps = self.scheduler.timesteps.tolist()
        states, means = self._start(rows), RowQueue()
        for number, t in enumerate(timesteps):
            keep = means if number == 0 and self.detail_gain != 1 else None
            states = self._step(_cut(states, rows), number, t, keep, rows)
        columns = torch.arange(self.lr.shape[-1], device=self.lr.device)
        spans = torch.from_numpy(self.needed.columns).to(self.lr.device)  # (h, 2)
        for x0, y0 in states:
            span = spans[x0.top : x0.bottom]
            inside = (columns >= span[:, :1]) & (columns < span[:, 1:])  # (n, w)
            sample = x0.data  # (1, C*f*f, n, w)
            if self.detail_gain != 1:
                sample = amplified(sample, means.take(x0.bottom, 0, self.lr.shape[-1]), self.detail_gain)
            yield self.codec.decode(torch.where(inside, sample, y0.data))
            if self.scarce:
                give_back()  # of maps that come and go the C library keeps several times what is in use

    def _start(self, rows: int) -> Iterator[State]:
        height = self.lr.shape[-2]
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            y0 = self._y0(top, bottom)
            yield Rows(top, 0, self.scheduler.init_noise(y0, noise=self._noise(0, y0, top))), Rows(top, 0, y0)

    def _step(
        self, states: Iterator[State], number: int, t: int, estimates: RowQueue | None, rows: int
    ) -> Iterator[State]:
        """x_t -> x_{t-1}, in bands of so many rows; the estimates of x0 go into a queue where one is given."""
        height, width = self.lr.shape[-2:]
        stream, waiting, plain = LightStream(self.net, t, self.needed, rows), RowQueue(), RowQueue()
        drawn = self.scheduler.transition == "ancestral" and number < len(self.scheduler.timesteps) - 1
        for x_t, enlarged in states:
            waiting.push(x_t)
            plain.push(enlarged)
            deviation = self.scheduler.scale_model_input(x_t.data, t) - enlarged.data
            lq = self.lr[..., x_t.top : x_t.bottom, :]
            for prediction in stream.push(deviation, lq, x_t.top, x_t.bottom == height):
                top, bottom = prediction.top, prediction.bottom
                if bottom == top:
                    continue
                x, y0 = waiting.take(bottom, 0, width), plain.take(bottom, 0, width)  # (1, C*f*f, n, w)
                noise = self._noise(number + 1, y0, top) if drawn else torch.zeros_like(y0)
                x_prev, x0 = self.scheduler.step(prediction.fitted(0, width), t, x, y0, noise=noise, return_dict=False)
                if estimates is not None:
                    estimates.push(Rows(top, 0, x0))
                if self.observer is not None:
                    self.observer(number, x0, x_prev)
                yield Rows(top, 0, x_prev), Rows(top, 0, y0)

    def _y0(self, top: int, bottom: int) -> Tensor:
        """Rows of the enlarged picture in the space of the chain, (1, C*f*f, n, w)."""
        first, last = max(0, top - REACH), min(self.lr.shape[-2], bottom + REACH)
        enlarged = upsample_bicubic(self.lr[..., first:last, :], self.codec.factor, self.upsampling)
        return self.codec.encode(enlarged)[..., top - first : bottom - first, :]

    def _noise(self, draw: int, like: Tensor, top: int) -> Tensor:
        _, channels, count, width = like.shape
        return normal_rows(self.seed, (self.member, draw), top, top + count, channels, width).to(like)


def _cut(states: Iterator[State], most: int) -> Iterator[State]:
    """The same in bands of at most so many rows: what a step gives at its end is thick."""
    for x_t, y0 in states:
        count = x_t.data.shape[-2]
        for first in range(0, count, most):
            last = min(first + most, count)
            yield x_t.part(first, last), y0.part(first, last)


def amplified(sample: Tensor, mean: Tensor, gain: float) -> Tensor:
    """mean + gain * (sample - mean): a sample whose detail, what it has beyond the posterior mean, is stronger.

    A chain of few steps, trained by squared error, draws samples that lie too near their mean: its detail is in the
    right places and too faint. The gain that puts that right is measured on validation photographs.

    Args:
        sample: x0 at the end of the chain. mean: the estimate of x0 at its first step. Both in the space of the chain.
    """
    return mean + gain * (sample - mean)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whichever device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # the CPU's own wording
    )


def halving(bands: Callable[[int], Iterator[Tensor]], rows: int) -> Iterator[Tensor]:
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
            give_back()  # what thicker bands have freed


def planned_rows(width: int, net: LightNet, memory: int, steps: int = 1) -> int:
    """How many rows at a time fit into so many bytes: 1 to what `BAND_PIXELS` and `BAND_ROWS` allow."""
    kept, row = _bytes_held(width, net, steps)
    most = min(BAND_ROWS, max(LEAST_ROWS, BAND_PIXELS // width))
    return int(max(1, min(most, (memory - kept) // row)))


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
