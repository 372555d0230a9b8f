"""Results of any size up to the checkpoint's own: its result, reduced by the antialiased bicubic of the protocol.

Reducing by bicubic twice is not reducing once, so a smaller result is projected onto the input (`fidelity`) at its own
size. Projecting the full result as well costs 0.02 dB on validation photographs (x2) and time. All of it goes by bands
of rows: neither the full result nor a second smaller one is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from retinashift.imaging.degradation.bicubic import keys_cubic
from retinashift.inference.fidelity import Limits, reduced

Size = tuple[int, int]
"""Height and width."""


class RowResampler:
    """Bicubic resampling (a = -0.5, antialiased) of a picture that comes in bands of rows.

    Args:
        size: of the picture. target: of the result; each side on its own may grow or shrink.
    """

    def __init__(self, size: Size, target: Size):
        self.size, self.target = size, target
        self.done = 0
        """Rows of the result that were given out."""
        self._held: Tensor | None = None
        self._top = self._bottom = 0

    def push(self, band: Tensor) -> Tensor:
        """The next rows, (1, C, n, W); returns the rows of the result that are complete by now, (1, C, m, w)."""
        if band.shape[-1] != self.target[1]:
            band = reduced(band, band.shape[-2], self.target[1])
        held = band if self._held is None else torch.cat([self._held, band], dim=-2)
        self._bottom += band.shape[-2]
        ready = self.done
        while ready < self.target[0] and self.reach(ready)[1] <= self._bottom:
            ready += 1
        result = self.rows(held, self._top, self.done, ready)
        self.done = ready
        first = self.reach(ready)[0] if ready < self.target[0] else self._bottom
        self._held, self._top = held[..., max(0, first - self._top) :, :].clone(), max(first, self._top)
        return result

    def reach(self, row: int) -> tuple[int, int]:
        """First row of the picture that a row of the result is made of, and the row beyond the last."""
        ratio = self.size[0] / self.target[0]
        middle, half = (row + 0.5) * ratio, 2 * max(ratio, 1.0)
        return max(0, int(middle - half + 0.5)), min(self.size[0], int(middle + half + 0.5))

    def rows(self, held: Tensor, top: int, start: int, stop: int) -> Tensor:
        """Rows of the result of rows from `top` on, which are as wide as the result already."""
        if start == stop:
            return held[..., :0, :]
        ratio = self.size[0] / self.target[0]
        first, last = self.reach(start)[0], self.reach(stop - 1)[1]
        place = np.arange(first, last) + 0.5 - (np.arange(start, stop)[:, None] + 0.5) * ratio
        weights = keys_cubic(place / max(ratio, 1.0))
        weights /= weights.sum(1, keepdims=True)
        matrix = torch.from_numpy(weights).to(held)  # (m, n)
        with torch.autocast(held.device.type, enabled=False):  # a picture in half precision would be rounded
            return matrix @ held[..., first - top : last - top, :]


def at_size(
    bands: Iterator[Tensor], lr: Tensor, native: Size, target: Size, iterations: int, limits: Limits | None
) -> Iterator[Tensor]:
    """A result in bands of rows -> the result of another size in bands, consistent with its input.

    Args:
        bands: (1, C, n, W) each, top to bottom, in about [-1, 1].
        lr: the input, (1, C, h, w) in [-1, 1], where the bands are.
        native, target: size of the result that comes, and of the one that goes.
        iterations: of back-projection; 0 reduces only.
        limits: of the values, see `fidelity.value_limits`; None is -1 and 1.
    """
    rows = _within(_reduced(bands, native, target), lr, target, limits)
    for _ in range(iterations):
        rows = _within(_projected(rows, lr, target), lr, target, limits)
    return rows


def reduce_map(sigma: np.ndarray, target: Size) -> np.ndarray:
    """Standard deviations (H, W) -> those of a smaller result, (h, w): the root of the reduced variance.

    That is what remains if errors of neighbouring pixels are equal, so it is never too small.
    """
    bands = iter(torch.from_numpy(sigma)[None, None].square().split(64, dim=-2))
    small = torch.cat(list(_reduced(bands, (sigma.shape[0], sigma.shape[1]), target)), dim=-2)
    return small[0, 0].clamp(min=0).sqrt().numpy()


def _reduced(bands: Iterator[Tensor], native: Size, target: Size) -> Iterator[Tensor]:
    resampler = RowResampler(native, target)
    for band in bands:
        rows = resampler.push(band.clamp(-1, 1))
        if rows.shape[-2]:
            yield rows


def _within(bands: Iterator[Tensor], lr: Tensor, size: Size, limits: Limits | None) -> Iterator[Tensor]:
    """Values cut off at the limits of the input pixel in which their own middle lies."""
    (height, width), top = size, 0
    columns = nearest(width, lr.shape[-1], 0, width)
    for band in bands:
        rows = nearest(height, lr.shape[-2], top, top + band.shape[-2])
        top += band.shape[-2]
        if limits is None:
            yield band.clamp(-1, 1)
        else:
            least, most = (limit[..., rows, :][..., columns] for limit in limits)
            yield torch.fmin(torch.fmax(band, least), most)


def nearest(side: int, small: int, start: int, stop: int) -> Tensor:
    """For positions start..stop of `side`, the position of `small` that their middle lies in."""
    return ((torch.arange(start, stop, dtype=torch.float64) + 0.5) * (small / side)).long()


def _projected(bands: Iterator[Tensor], lr: Tensor, size: Size) -> Iterator[Tensor]:
    """One back-projection: what a reduced result lacks of its input is interpolated and added."""
    small = (lr.shape[-2], lr.shape[-1])
    down, up, missing = RowResampler(size, small), RowResampler(small, size), lr.clone()
    waiting, done = deque[Tensor](), 0
    for band in bands:
        start = down.done
        change = down.push(band)
        missing[..., start : down.done, :] -= change
        waiting.append(band)
        while waiting and up.reach(done + waiting[0].shape[-2] - 1)[1] <= down.done:
            ready = waiting.popleft()
            top, done = done, done + ready.shape[-2]
            first, last = up.reach(top)[0], up.reach(done - 1)[1]
            wide = reduced(missing[..., first:last, :], last - first, size[1])
            yield ready + up.rows(wide, first, top, done)
