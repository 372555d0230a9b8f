"""LightNet band by band: the prediction for a whole picture, in memory that does not grow with its height.

A 3x3 convolution needs one row above and one below each row that it returns. Rows are therefore pushed in from top to
bottom, each convolution keeps the last two rows of its input, and each layer lags one row behind the layer before it.
No row is computed twice, so the numbers are those of the whole picture and borders between bands cannot show.
"""

from collections import deque
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.models.light_net import LightNet
from retinashift.models.uncertainty_head import UncertaintyHead, clip_scale


class RowQueue:
    """Rows of a map that wait, first in, first out."""

    def __init__(self) -> None:
        self.pieces: deque[Tensor] = deque()

    def push(self, rows: Tensor) -> None:
        """Append rows, (1, C, n, w)."""
        self.pieces.append(rows)

    def take(self, count: int) -> Tensor:
        """Remove and return the first `count` rows, (1, C, count, w). At least one piece must wait."""
        taken = []
        while count > 0:
            rows = self.pieces.popleft()
            if rows.shape[-2] > count:
                self.pieces.appendleft(rows[..., count:, :])
                rows = rows[..., :count, :]
            taken.append(rows)
            count -= rows.shape[-2]
        return taken[0] if len(taken) == 1 else torch.cat(taken or [self.pieces[0][..., :0, :]], dim=-2)


class _Convolution:
    """A 3x3 convolution with zero padding that receives its rows band by band, and keeps the last two of them."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias
        self.bottom = 0
        """The row behind the last window; above the picture is a row of zeros."""
        self._kept: Tensor | None = None  # (1, C, 2, w)
        self._closed = False

    def window(self, rows: Tensor, last: bool) -> Tensor:
        """The rows that earlier ones left and these, (1, C, 2 + n, w), channels last.

        `last`: no more rows will come, so a row of zeros follows. It may be repeated.
        """
        batch, channels, count, width = rows.shape
        zeros = rows.new_zeros(batch, 1, width, channels).permute(0, 3, 1, 2)
        ends = last and not self._closed
        parts = [zeros if self._kept is None else self._kept, rows, *[zeros] * ends]
        window = torch.cat([part for part in parts if part.shape[-2]], dim=-2)
        window = window.contiguous(memory_format=torch.channels_last)
        self.bottom += count + ends
        kept, self._closed = window[..., -2:, :], last  # copied into one place, or the heap falls into pieces
        self._kept = kept.clone() if self._kept is None or self._kept.shape != kept.shape else self._kept.copy_(kept)
        return window

    def __call__(self, window: Tensor) -> Tensor:
        """(1, C, n + 2, w) -> (1, C', n, w); n is 0 where a window has fewer than 3 rows."""
        if window.shape[-2] < 3:
            return window.new_empty(1, len(self.weight), 0, window.shape[-1])
        return F.conv2d(window, self.weight, self.bias, padding=(0, 1))

    def push(self, rows: Tensor, last: bool) -> Tensor:
        """The rows that can now be computed."""
        return self(self.window(rows, last))


class _Block:
    """`LightBlock`, which receives its rows band by band; its layers are two of `LightNet.folded`."""

    def __init__(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]):
        self.first, self.second = _Convolution(*first), _Convolution(*second)

    def push(self, x: Tensor, closing: int) -> Tensor:
        """The rows that can now be computed. `closing`: how many of the layers get no more rows after these."""
        seen = self.first.window(x, closing > 0)  # (1, C, n + 2, w)
        hidden = self.second.window(torch.ops.aten.gelu_(self.first(seen)), closing > 1)  # (1, C, n' + 2, w)
        result = self.second(hidden)  # (1, C, n', w)
        last = self.second.bottom - 1 - (self.first.bottom - seen.shape[-2])  # in `seen`: behind the result's place
        return result.add_(seen[..., last - result.shape[-2] : last, :])


class LightStream:
    """One call of a `LightNet`, rows in and rows out.

    Args:
        height: rows of the picture.
        most: how many rows a layer returns at a time, at most, beyond those that it is given. After the last row of the
            picture each layer owes one row more than the layer before it; they are computed this many rows at a time.
        head: of the uncertainty, reads the same features; `on_scale` is called with rows of what it returns,
            (1, f*f, n, w), top to bottom, one row after those of the prediction.
    """

    def __init__(
        self,
        net: LightNet,
        timestep: int,
        height: int,
        most: int = 64,
        head: UncertaintyHead | None = None,
        on_scale: Callable[[Tensor], object] | None = None,
    ):
        self.height, self.most, self.pushed = height, most, 0
        self.lag = 2 * net.config.depth + 2
        """How many rows the prediction lags behind the rows pushed in."""
        (weight, bias), *layers, last = net.folded(timestep)
        self.read = _Convolution(torch.cat([weight, net.folded_state(timestep)], dim=1), bias)  # reads lq and state
        self.blocks = [_Block(*pair) for pair in zip(layers[::2], layers[1::2], strict=True)]
        self.write = _Convolution(*last)
        self.skip = RowQueue()
        self.on_scale = on_scale
        self.head = [] if head is None else [_Convolution(conv.weight, conv.bias) for conv in (head.read, head.write)]

    def push(self, deviation: Tensor, lq: Tensor) -> Iterator[Tensor]:
        """Yield the rows of the prediction e0 that can now be computed, (1, C*f*f, n, w), in bands from top to bottom.

        Args:
            deviation: x_t - y0, the next rows of it, (1, C*f*f, n, w).
            lq: the same rows of the low-resolution image in [-1, 1], (1, C, n, w).
        """
        self.pushed += lq.shape[-2]
        given = torch.cat([lq, deviation], dim=1)  # (1, C + C*f*f, n, w)
        last = self.lag + (1 if self.head else 0)
        ending = range(self.most, last + self.most, self.most) if self.pushed == self.height else [0]
        for closing in ending:
            prediction = self._pass(given, closing)
            if prediction.shape[-2]:
                yield prediction
            given = given[..., :0, :]

    def _pass(self, given: Tensor, closing: int) -> Tensor:
        """`closing`: how many layers, from the first on, get no more rows after these."""
        h = self.read.push(given, closing > 0)  # (1, width, n, w)
        self.skip.push(h)
        for number, block in enumerate(self.blocks):
            h = block.push(h, closing - 1 - 2 * number)
        features, ended = h + self.skip.take(h.shape[-2]), closing >= self.lag  # (1, width, n, w)
        if self.head and self.on_scale is not None:
            read, write = self.head
            hidden = write.window(torch.ops.aten.gelu_(read.push(features, ended)), closing > self.lag)
            self.on_scale(clip_scale(write(hidden)))
        return self.write.push(features, ended)  # (1, C*f*f, n, w)
