"""LightNet band by band: the numbers of the whole picture, in memory that does not grow with its height.

A convolution of 3x3 needs one row above and one below each row that it gives. Rows are therefore pushed in from top to
bottom, every convolution keeps the last two rows of its input, and what comes out lags `lag` rows behind what went in.
Nothing is computed twice, and there are no borders between bands that could be seen.

Nor is everything computed: a caller who needs some columns of a row only says so, and every layer computes those
columns and a margin around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from retinashift.models.light_net import LightBlock, LightNet

COLUMN_STEP = 4
"""Extents are widened to multiples of this, because every new shape costs the convolution library a preparation."""
MARGIN = 8
"""How far around the needed values a layer computes at most, in columns and rows.

Every layer looks one further, so that numbers equal to those of the whole map would take as many pixels as there are
layers. Beyond the margin stand zeros, as beyond the edge of a picture: every network with these convolutions has met
that edge in each of its training patches, however deep it is, and beside it here lies a dark surround without detail.
With the shipped checkpoint on STARE, reduced by 4, values in the field then differ by one of 255 levels at most; with 6
some differ by two, with 4 by three.
"""

Activation = Callable[..., Tensor]
"""An element-wise function with `out`, of which f(0) = 0."""


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of a map, of which the columns from `left` on are there: `data` is (1, C, n, m).

    `then` is still to be done to the values; it is done where they are copied, which saves a pass over memory.
    """

    top: int
    left: int
    data: Tensor
    then: Activation | None = None

    @property
    def bottom(self) -> int:
        return self.top + self.data.shape[-2]

    def part(self, first: int, last: int) -> Rows:
        """Rows first..last, counted from the first of these."""
        return replace(self, top=self.top + first, data=self.data[..., first:last, :])

    def within(self, left: int, right: int) -> tuple[int, int]:
        """Which of the columns left..right are there."""
        first = min(max(left, self.left), right)
        return first, max(first, min(right, self.left + self.data.shape[-1]))

    def columns(self, first: int, last: int) -> Tensor:
        """The data of these columns, which are there."""
        return self.data[..., first - self.left : last - self.left]

    def write(self, out: Tensor, left: int) -> None:
        """Into `out`, (1, C, n, m), of which `left` is the first column; zeros where there are none."""
        right = left + out.shape[-1]
        first, last = self.within(left, right)
        out[..., : first - left] = 0
        place, values = out[..., first - left : last - left], self.columns(first, last)
        if self.then is None:
            place.copy_(values)
        else:
            self.then(values, out=place)
        out[..., last - left :] = 0

    def fitted(self, left: int, right: int) -> Tensor:
        """The columns left..right, zero where there are none: (1, C, n, right - left)."""
        first, last = self.within(left, right)
        if self.then is None and (first, last) == (left, right):
            return self.columns(left, right)
        return _joined([self], left, right)


class RowQueue:
    """Rows that wait, first in, first out.

    What stays behind when the rest of a band has left is copied to a place that the queue keeps: small pieces of their
    own, made anew for each band, would come to lie between large ones, and memory could not be used again.
    """

    def __init__(self) -> None:
        self.waiting: list[Rows] = []
        self.place: Tensor | None = None

    def push(self, rows: Rows) -> None:
        if rows.data.shape[-2]:
            self.waiting.append(rows)

    def take(self, bottom: int, left: int, right: int, *, keep: int = 0) -> Tensor:
        """All rows above `bottom`, (1, C, n, right - left). They leave the queue, but for the last `keep` of them."""
        taken = self._above(bottom)
        # what lies in the queue's own place is copied, as that is written to again
        alone = len(taken) == 1 and not self._is_placed(taken[0].data)
        result = taken[0].fitted(left, right) if alone else _joined(taken, left, right)
        self._drop(bottom - keep)
        return result

    def add_to(self, rows: Rows) -> None:
        """Add to each of `rows` the row that waits in its place. All rows above the last of them leave the queue.

        For values to which nothing is still to be done: no `then` on either side.
        """
        right = rows.left + rows.data.shape[-1]
        for waiting in self._above(rows.bottom):
            first, last = waiting.within(rows.left, right)
            place = rows.part(waiting.top - rows.top, waiting.bottom - rows.top).columns(first, last)
            place.add_(waiting.columns(first, last))
        self._drop(rows.bottom)

    def _above(self, bottom: int) -> list[Rows]:
        return [rows.part(0, bottom - rows.top) for rows in self.waiting if rows.top < bottom]

    def _drop(self, bottom: int) -> None:
        """Rows above `bottom` leave; what remains of a cut band goes to the queue's place."""
        self.waiting = [
            rows if rows.top >= bottom else self._placed(rows.part(bottom - rows.top, rows.data.shape[-2]))
            for rows in self.waiting
            if rows.bottom > bottom
        ]

    def _is_placed(self, data: Tensor) -> bool:
        return self.place is not None and data.untyped_storage().data_ptr() == self.place.untyped_storage().data_ptr()

    def _placed(self, rows: Rows) -> Rows:
        """The same rows in the queue's own place."""
        data, size = rows.data, rows.data.numel()
        if self._is_placed(data):
            rows = replace(rows, data=data.clone())
        if self.place is None or self.place.numel() < size:
            self.place = data.new_empty(size + size // 4)
        batch, channels, count, width = data.shape
        own = self.place[:size].view(batch, count, width, channels).permute(0, 3, 1, 2)  # channels last, as layers are
        rows.write(own, rows.left)
        return Rows(rows.top, rows.left, own)


def _joined(pieces: list[Rows], left: int, right: int) -> Tensor:
    """Their columns left..right one above the other, zero where there are none: (1, C, n, right - left)."""
    batch, channels = pieces[0].data.shape[:2]
    count = sum(rows.data.shape[-2] for rows in pieces)
    result = pieces[0].data.new_empty(batch, count, right - left, channels).permute(0, 3, 1, 2)  # channels last
    for rows, part in zip(pieces, result.split([rows.data.shape[-2] for rows in pieces], dim=-2), strict=True):
        rows.write(part, left)
    return result


class Needed:
    """Which columns of each row of the result are needed.

    Args:
        columns: (h, 2) whole numbers, start and end of each row's columns; equal where a row is not needed.
        width: of the map.
    """

    def __init__(self, columns: np.ndarray, width: int):
        self.columns, self.width = columns, width
        some = np.flatnonzero(columns[:, 0] < columns[:, 1])
        self.first, self.end = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 0)

    def extent(self, top: int, bottom: int, radius: int) -> tuple[int, int]:
        """The columns of rows top..bottom within `radius` of needed values, in both directions, at most `MARGIN`."""
        radius = min(radius, MARGIN)
        rows = self.columns[max(0, top - radius) : bottom + radius]
        rows = rows[rows[:, 0] < rows[:, 1]]
        if not len(rows):
            return 0, 0
        left, right = int(rows[:, 0].min()) - radius, int(rows[:, 1].max()) + radius
        left, right = left // COLUMN_STEP * COLUMN_STEP, -(-right // COLUMN_STEP) * COLUMN_STEP
        return max(0, left), min(self.width, right)

    def rows(self, top: int, bottom: int, radius: int) -> tuple[int, int]:
        """Which of rows top..bottom lie within `radius`, at most `MARGIN`, of needed ones: start and end from top."""
        radius = min(radius, MARGIN)
        first, end = self.first - radius - top, self.end + radius - top
        return max(0, first), min(bottom - top, end)


class _Convolution:
    """A 3x3 convolution with zero padding, and `then` what is done to its values, that is given its rows bit by bit.

    `radius`: see `Needed.extent`. `modulation`: gain and shift of each channel of the result, (C,) each, which the
    weights take in. Rows that are not needed come out as zeros.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        radius: int,
        needed: Needed,
        then: Activation | None = None,
        modulation: tuple[Tensor, Tensor] | None = None,
    ):
        self.radius, self.needed, self.then = radius, needed, then
        self.weight: Tensor = conv.weight
        self.bias: Tensor | None = conv.bias
        if modulation is not None:
            gain, shift = modulation
            self.weight = self.weight * gain[:, None, None, None]
            self.bias = shift if self.bias is None else torch.addcmul(shift, self.bias, gain)
        self.channels = conv.out_channels
        self.queue = RowQueue()
        self.top = -1  # the first row of the queue: above the picture there is a row of zeros
        self.closed = False

    def push(self, rows: Rows, last: bool) -> Rows:
        """The rows that can now be computed; `last`: no more will come, which may be said again."""
        last, self.closed = last and not self.closed, last
        if self.top == -1 and not self.queue.waiting:
            self.queue.push(Rows(-1, rows.left, rows.data.new_zeros(*rows.data.shape[:2], 1, rows.data.shape[-1])))
        self.queue.push(rows)
        if last:
            below = rows.data.new_zeros(*rows.data.shape[:2], 1, rows.data.shape[-1])
            self.queue.push(Rows(rows.bottom, rows.left, below))
        bottom = rows.bottom + last  # of the rows that are there
        top, count = self.top + 1, max(0, bottom - self.top - 2)
        left, right = self.needed.extent(top, top + count, self.radius) if count else (0, 0)
        if not count:
            return Rows(top, left, rows.data.new_zeros(1, self.channels, 0, 0))
        self.top = bottom - 2
        window = self.queue.take(bottom, left - 1, right + 1, keep=2)  # (1, C, count + 2, m + 2)
        if left == right:
            return Rows(top, left, rows.data.new_zeros(1, self.channels, count, 0))
        first, end = self.needed.rows(top, top + count, self.radius)
        out = F.conv2d(window[..., first : end + 2, :], self.weight, self.bias)  # (1, C, end - first, m)
        return Rows(top, left, F.pad(out, (0, 0, first, count - end)) if end - first < count else out, self.then)


class _Block:
    """`LightBlock`, that is given its rows bit by bit."""

    def __init__(self, block: LightBlock, time: Tensor, radius: int, needed: Needed):
        scale, shift = block.time(time)[0].chunk(2)  # (C,) each
        self.first = _Convolution(block.conv1, radius + 1, needed, torch.ops.aten.gelu, (1 + scale, shift))
        self.second = _Convolution(block.conv2, radius, needed)
        self.queue = RowQueue()

    def push(self, x: Rows, closing: int) -> Rows:
        """`closing`: how many of its layers get no more rows after these."""
        self.queue.push(x)
        h = self.first.push(x, closing > 0)
        return _plus(self.second.push(h, closing > 1), self.queue)


class LightStream:
    """One call of a `LightNet`, rows in and rows out.

    Args:
        net: the network.
        timestep: step index.
        needed: columns of the prediction that are needed; all others come out as anything.
        most: how many rows a layer is to give at a time beyond those that it is given. When the last rows have come,
            each layer gives one more than the one before it; so layers end one after the other, so many at a time.
    """

    def __init__(self, net: LightNet, timestep: int, needed: Needed, most: int = 64):
        self.most = most
        factor, width, depth, self.gain = (
            net.config.factor, net.config.width, net.config.depth, net.config.residual_gain,
        )  # fmt: skip
        self.factor, self.lag = factor, 2 * depth + 2
        step = torch.full((1,), timestep, device=net.device)
        time = net.time(get_timestep_embedding(step, width).to(net.dtype))  # (1, time_width)
        self.gate = net.state_gate(time)[:, :, None, None]  # (1, width, 1, 1)
        self.read_lq = _Convolution(net.read_lq, 2 * depth + 1, needed)
        self.read_state = _Convolution(net.read_state, 2 * depth + 1, needed)
        self.blocks = [
            _Block(block, time, 2 * (depth - 1 - number) + 1, needed)
            for number, block in enumerate(net.blocks)
            if isinstance(block, LightBlock)
        ]
        self.write = _Convolution(net.write, 0, needed)
        self.skip = RowQueue()

    def push(self, deviation: Tensor, lq: Tensor, top: int, last: bool) -> list[Rows]:
        """Rows of the prediction e0 that can now be computed, perhaps none, in bands from top to bottom.

        Args:
            deviation: x_t - y0, the next rows of it, (1, C*f*f, n, w).
            lq: the same rows of the low-resolution image in [-1, 1], (1, C, n, w).
            top: the first of these rows.
            last: no more will come.
        """
        if not last:
            return [self._pass(Rows(top, 0, deviation), Rows(top, 0, lq), 0)]
        bands: list[Rows] = []
        for closing in range(self.most, self.lag + self.most, self.most):
            bands.append(self._pass(Rows(top, 0, deviation), Rows(top, 0, lq), closing))
            top, deviation, lq = top + lq.shape[-2], deviation[..., :0, :], lq[..., :0, :]
        return bands

    def _pass(self, deviation: Rows, lq: Rows, closing: int) -> Rows:
        """`closing`: the first so many layers get no more rows after these."""
        seen = self.read_lq.push(lq, closing > 0)
        state = self.read_state.push(replace(deviation, data=deviation.data * self.gain), closing > 0)
        joined = torch.addcmul(seen.data, self.gate, state.data).contiguous(memory_format=torch.channels_last)
        h = Rows(seen.top, seen.left, joined)  # else a processor reorders before and after each layer
        self.skip.push(h)
        for number, block in enumerate(self.blocks):
            h = block.push(h, closing - 1 - 2 * number)
        residual = self.write.push(_plus(h, self.skip), closing >= self.lag)
        return Rows(residual.top, residual.left, residual.data / self.gain)


def _plus(rows: Rows, queue: RowQueue) -> Rows:
    """Rows and those that waited for them, added."""
    if rows.data.shape[-2]:
        queue.add_to(rows)
    return rows
