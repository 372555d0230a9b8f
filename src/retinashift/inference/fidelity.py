"""Faithfulness to the input: a result that is reduced again must give the input back.

A network's estimate can drift by a grey level here or there, in colour or in brightness. Iterative back-projection
(Irani, Peleg, 1991) puts that right: what the reduced result lacks is interpolated and added. It changes what the input
has measured, the coarse structure, and leaves the estimated detail as it is.

A value of an 8-bit input stands for all values that round to it. To meet the value itself would copy its rounding error
into the result, which on soft photographs is as strong as the detail. Only what lies outside this rounding cell is
corrected, so that the result, reduced and rounded as Pillow does it, is the input to the bit.

Whatever the weights are, a value of the result stays near what was seen: within the span of the input pixels around it,
a little widened (`value_limits`). The limits are applied inside each round of back-projection, after its correction, so
that they hold of the final result, and each round corrects what they took away before. In a conflict the limits win.

A result smaller than the checkpoint's own is that one, reduced by the antialiased bicubic of the protocol. Reducing by
bicubic twice is not reducing once, so it is projected onto the input at its own size. Projecting the full result as
well costs 0.02 dB on validation photographs (x2) and time. All of it goes by bands; the full result is not held.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.degradation.bicubic import keys_cubic
from retinashift.models.codec import upsample_bicubic

REACH = 2
"""How many input pixels beyond its own a reduced pixel looks: half the width of the bicubic kernel."""
SPAN, LEVELS = 0.5, 4.0
"""A value lies within `SPAN` times the span of its input neighbourhood and `LEVELS` of 255 levels beyond that span."""
ROUNDING = 0.5
"""Levels of 255 that the limits leave to the rounding of an 8-bit result."""
CELL = 0.3
"""Levels of 255 by which a reduced 8-bit result may miss the input's value: less than half a level, because the
correction itself is rounded when the result is written. Chosen on validation photographs."""
SOLVER_STEPS, RELAXATION = 3, 1.3
"""What is added to a result is interpolated and reduced again before it meets the input. That weakens its finest
octave; this many steps on the grid of the input make up for it."""
CLOSED = 0.75
"""Share of what is missing that is added where the cell is closed: the whole of it rings beside drawn lines."""
FREE = 0.25
"""Least share of an input pixel's values that are not at their limit; their correction is larger by its inverse."""
SPREAD = 2
"""Input pixels that a pixel's correction, interpolated and reduced again, reaches with more than 0.2 % of its value."""
Size = tuple[int, int]
"""Height and width."""
Cell = Callable[[int, int], Tensor]
"""(top, bottom) -> half the width of the rounding cell of these input rows, (1, 1, n, w), 0 where the value counts."""


def value_limits(lr: Tensor) -> Tensor:
    """Least and largest value that a result may have at each input pixel, (2, B, C, h, w).

    With m and M the least and largest value of the 5x5 input pixels around, per channel, a result written with 8 bits
    or more lies in [m - SPAN (M - m) - LEVELS, M + SPAN (M - m) + LEVELS]; bicubic interpolation always does.

    Args:
        lr: (B, C, h, w) in [-1, 1].
    """
    least, most = -F.max_pool2d(-lr, 5, stride=1, padding=2), F.max_pool2d(lr, 5, stride=1, padding=2)
    room = SPAN * (most - least) + (LEVELS - ROUNDING) * 2 / 255
    return torch.stack([least - room, most + room]).clamp(-1, 1)


def within(sr: Tensor, limits: Tensor | None, scale: int) -> Tensor:
    """`sr` cut off at its limits, at -1 and 1 where there are none. What is not a number becomes the least value.

    Args:
        sr: (B, C, h*scale, w*scale). limits: (2, B, C, h, w).
    """
    if limits is None:
        return sr.clamp(-1, 1)
    # one row of limits serves `scale` rows of the result, so that values lie beside one another where they are compared
    least, most = limits.repeat_interleave(scale, -1)[..., None, :]  # (B, C, h, 1, W)
    blocks = sr.nan_to_num(nan=-1).unflatten(-2, (-1, scale))  # (B, C, h, scale, W); fmax is eight times as slow
    return torch.clamp(blocks, least, most, out=blocks).flatten(-3, -2)


def change_of(sr: Tensor, lr: Tensor, scale: int, cell: Tensor | None, limits: Tensor | None) -> Tensor:
    """What is to be interpolated and added to `sr`, which lies within its limits, as `lr`."""
    if cell is None:
        return lr - reduced(sr, *lr.shape[-2:])
    # Pillow reduces the width first, and rounds after each direction
    levels = sr.mul(127.5).add_(127.5).round_()  # as it is when it is written with 8 bits
    levels = reduced(levels, sr.shape[-2], lr.shape[-1]).round_().clamp_(0, 255)  # (B, C, h*scale, w)
    missing = lr - (reduced(levels, *lr.shape[-2:]) / 127.5 - 1)
    change = torch.zeros_like(missing)
    for step in range(SOLVER_STEPS):
        left = missing - _interpolated_and_reduced(change, scale) if step else missing
        change = change + RELAXATION * (left - left.clamp(-cell, cell))
    outside = missing.abs() > cell
    change[outside] /= _free_share(sr, missing, scale, limits, outside)
    return torch.where(cell > 0, change, CLOSED * missing)


def _free_share(sr: Tensor, missing: Tensor, scale: int, limits: Tensor | None, where: Tensor) -> Tensor:
    """Share of the values of some input pixels that can still go the way that is missing, (n,), at least `FREE`."""
    least, most = (-torch.ones_like(missing), torch.ones_like(missing)) if limits is None else limits
    limit = torch.where(missing > 0, most, least)[where]  # (n,)
    blocks = sr.unflatten(-2, (-1, scale)).unflatten(-1, (-1, scale)).transpose(-3, -2)[where]  # (n, scale, scale)
    return (blocks != limit[:, None, None]).float().mean((1, 2)).clamp(min=FREE)


def reduced(image: Tensor, height: int, width: int) -> Tensor:
    """The antialiased bicubic reduction of the protocol, in floating point and not clamped, (B, C, height, width)."""
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)


def _interpolated_and_reduced(image: Tensor, scale: int) -> Tensor:
    """`image` (B, C, h, w), interpolated and reduced again, without the large picture; its border is approximate."""
    for dim, pad in ((-1, (SPREAD, SPREAD, 0, 0)), (-2, (0, 0, SPREAD, SPREAD))):
        padded, size = F.pad(image, pad, mode="replicate"), image.shape[dim]
        first, *others = (weight * padded.narrow(dim, at, size) for at, weight in enumerate(spread_weights(scale)))
        image = sum(others, first)
    return image


@cache
def spread_weights(scale: int) -> tuple[float, ...]:
    """What a pixel of a line, interpolated and reduced again, becomes: at itself and `SPREAD` pixels on both sides."""
    line = torch.zeros(1, 1, 1, 6 * SPREAD + 1)
    line[..., 3 * SPREAD] = 1
    large = upsample_bicubic(line.expand(1, 1, line.shape[-1], -1), scale)
    weights = reduced(large, *line.shape[-1:] * 2)[0, 0, 3 * SPREAD, 2 * SPREAD : 4 * SPREAD + 1]
    return tuple((weights / weights.sum()).tolist())


def back_project_rows(
    bands: Iterator[Tensor],
    lr: Tensor,
    scale: int,
    iterations: int,
    limits: Tensor | None = None,
    cell: Cell | None = None,
) -> Iterator[Tensor]:
    """Bring a picture closer to those whose bicubic reduction is `lr`; the same numbers in bands of any height.

    Args:
        bands: rows of the picture, (B, C, n*scale, w*scale) each, top to bottom, in [-1, 1]; they come out later.
        lr: (B, C, h, w) in [-1, 1].
        scale: of the picture; the reduction is `bicubic-pillow`, in floating point.
        iterations: how often; with 0 only the limits are applied.
        limits: of the values, see `value_limits`; None is -1 and 1.
        cell: of an 8-bit `lr` whose result is written with 8 bits; asked once its bands have come. None meets `lr`.
    """
    if iterations or limits is not None:
        bands = _limited(bands, limits, scale)  # what is cut off later would be missing from the reduced result
    for _ in range(iterations):
        bands = _one_iteration(bands, lr, scale, limits, cell)
    return bands


def _limited(bands: Iterator[Tensor], limits: Tensor | None, scale: int) -> Iterator[Tensor]:
    top = 0
    for rows in bands:
        bottom = top + rows.shape[-2] // scale
        yield within(rows, None if limits is None else limits[..., top:bottom, :], scale)
        top = bottom


def _one_iteration(
    bands: Iterator[Tensor], lr: Tensor, scale: int, limits: Tensor | None, cell: Cell | None
) -> Iterator[Tensor]:
    halo = 2 * REACH  # a correction is interpolated from corrections around it, each reduced from rows around it
    if cell is not None:
        halo += SPREAD * (SOLVER_STEPS - 1)
    for held, seen, new in with_neighbours(bands, lr.shape[-2], scale, halo):
        around = None if limits is None else limits[..., seen, :]
        change = change_of(held, lr[..., seen, :], scale, cell and cell(seen.start, seen.stop), around)
        here = slice((new.start - seen.start) * scale, (new.stop - seen.start) * scale)
        allowed = None if limits is None else limits[..., new, :]
        yield within(held[..., here, :] + upsample_bicubic(change, scale)[..., here, :], allowed, scale)
        del held, change  # or they live on while the next are made


def with_neighbours(
    bands: Iterator[Tensor], height: int, scale: int, halo: int
) -> Iterator[tuple[Tensor, slice, slice]]:
    """Bands of a picture with the rows around them that an operation looks at.

    Args:
        bands: (B, C, n*scale, W) each, top to bottom.
        height: of the input, whose rows are `scale` times as high as those of the picture.
        halo: input rows that are needed above and below.

    Returns:
        Rows of the picture, the input rows that they belong to, and the input rows among them that can now be computed.
    """
    held, top, done = None, 0, 0  # done: input rows that were given out
    for rows in bands:
        held = rows if held is None else torch.cat([held, rows], dim=-2)
        del rows
        bottom = top + held.shape[-2] // scale
        ready = bottom if bottom == height else bottom - halo
        if ready > done:
            yield held, slice(top, bottom), slice(done, ready)
            done, first = ready, max(0, ready - halo)
            held, top = held[..., (first - top) * scale :, :].clone(), first


class RowResampler:
    """Bicubic resampling (a = -0.5, antialiased) of a picture that comes in bands of rows.

    Args:
        size: of the picture. target: of the result; each side on its own may grow or shrink.
    """

    def __init__(self, size: Size, target: Size):
        self.size, self.target, self.ratio = size, target, size[0] / target[0]
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
        middle, half = (row + 0.5) * self.ratio, 2 * max(self.ratio, 1.0)
        return max(0, int(middle - half + 0.5)), min(self.size[0], int(middle + half + 0.5))

    def rows(self, held: Tensor, top: int, start: int, stop: int) -> Tensor:
        """Rows of the result of rows from `top` on, which are as wide as the result already."""
        if start == stop:
            return held[..., :0, :]
        first, last = self.reach(start)[0], self.reach(stop - 1)[1]
        place = np.arange(first, last) + 0.5 - (np.arange(start, stop)[:, None] + 0.5) * self.ratio
        weights = keys_cubic(place / max(self.ratio, 1.0))
        weights /= weights.sum(1, keepdims=True)
        matrix = torch.from_numpy(weights).to(held)  # (m, n)
        with torch.autocast(held.device.type, enabled=False):  # a picture in half precision would be rounded
            return matrix @ held[..., first - top : last - top, :]


def at_size(
    bands: Iterator[Tensor], lr: Tensor, native: Size, target: Size, iterations: int, limits: Tensor | None
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


def _within(bands: Iterator[Tensor], lr: Tensor, size: Size, limits: Tensor | None) -> Iterator[Tensor]:
    """Values cut off at the limits of the input pixel in which their own middle lies."""
    (height, width), top = size, 0
    columns = nearest(width, lr.shape[-1], 0, width)
    for band in bands:
        rows = nearest(height, lr.shape[-2], top, top + band.shape[-2])
        top += band.shape[-2]
        if limits is None:
            yield band.clamp(-1, 1)
        else:
            least, most = limits[..., rows, :][..., columns]
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
