"""The self-check: where a network's estimate contradicts its input, plain bicubic takes its place.

An outline drawn in a saturated colour made the bundled x4 draw chequers many times the size of the line. The input
shows such a failure, because an estimate, reduced again, must give the input back. The check looks at the network's own
estimate, before the projection onto the input (`fidelity`) hides what was wrong.

Two measures, in levels of 255, both the largest over the colours at each input pixel:

"value": |r - y|, with y the input and r the reduced estimate. For checkpoints whose training inputs were reduced and
    nothing else. On 54 validation photographs it is at most 4 inside the field, and 11 along the aperture, whose edge
    is sharp: there twice the threshold holds. Bursts reach 40 to 110, the ringing around them about 8.

"burst": max(0, |r - mean(r)| - (max(y) - min(y))), the mean over `SURROUND` x `SURROUND` input pixels, the span over
    `WINDOW` x `WINDOW`. For checkpoints that remove noise, blur or uneven light and rightly differ from their input, by
    up to 86 levels on validation photographs. Less noise makes r flatter, and light that varies slowly cancels in
    r - mean(r). Sharper edges raise it, but the span of the input, its noise included, is about twice its own
    deviation. What exceeds it is structure of which the input shows no contrast: 21 levels at most on validation
    photographs under the camera degradation, both modes. Beside a strong edge the span is wide and the measure blind.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.imaging.fundus import field_of_view
from retinashift.inference.fidelity import CELL, REACH, reduced, with_neighbours
from retinashift.models.codec import Upsampling, upsample_rows

Measure = Literal["value", "burst", "off"]
LEVEL = 2 / 255  # of 255 in pictures that lie in [-1, 1]
SURROUND, WINDOW = 13, 9  # input pixels, of the measure "burst"
NEAR = 24
"""Input pixels: this near to an excess, half the threshold counts as one too, because bursts fade into ringing."""
WIDEN, FADE = 4, 2
"""Input pixels: bicubic replaces all within `WIDEN` of an excess, and fades out over 2 * `FADE` more."""
DARK, BLOCK, RIM = 32, 7, 3
"""The aperture is within `RIM` input pixels of the frame, or of `BLOCK` x `BLOCK` pixels all below the level `DARK`."""
HALO = NEAR + WIDEN + 2 * FADE + 1
"""Input pixels beyond its own whose excess decides what a pixel of the result becomes."""


@dataclass
class SelfCheck:
    """The check of one picture; it adds up what it returned to bicubic over all samples of that picture."""

    lr: Tensor  # the input, (1, 3, h, w) float32 in [-1, 1]
    scale: int
    upsampling: Upsampling  # convention of the bicubic interpolation
    measure: Measure
    threshold: float  # the largest measure, in levels of 255, that is let through

    def __post_init__(self) -> None:
        # (h, w): where bicubic took the place of an estimate, their largest difference, in shares of full scale
        self.returned = torch.zeros(self.lr.shape[-2:])
        share = 1 + near_aperture(self.lr) * (self.measure == "value")
        self.allowed = share * (self.threshold * LEVEL)  # (1, 1, h, w)

    def rows(self, bands: Iterator[Tensor]) -> Iterator[Tensor]:
        """A sample, (1, 3, n*scale, w*scale) each, checked; the same however it is cut into bands, a few rows later."""
        if self.measure == "off":
            yield from bands
            return
        height, shown = self.lr.shape[-2], torch.empty_like(self.lr)
        waiting: deque[Tensor] = deque()
        wait, top = HALO + (SURROUND // 2 if self.measure == "burst" else 0), 0  # top: first input row that waits

        def clamped() -> Iterator[Tensor]:
            for band in bands:
                waiting.append(band)
                yield band.clamp(-1, 1)  # what is cut off later is not part of the estimate

        for held, seen, new in with_neighbours(clamped(), height, self.scale, REACH):
            small = reduced(held, seen.stop - seen.start, self.lr.shape[-1])
            del held  # or it lives on while the next is made
            shown[..., new, :] = small[..., new.start - seen.start : new.stop - seen.start, :]
            while waiting:
                bottom = top + waiting[0].shape[-2] // self.scale
                if bottom + wait > new.stop < height:
                    break
                yield self._checked(top, waiting.popleft(), shown)
                top = bottom

    def _checked(self, top: int, band: Tensor, shown: Tensor) -> Tensor:
        """Rows of a sample, with bicubic where they contradict the input."""
        height, bottom = self.lr.shape[-2], top + band.shape[-2] // self.scale
        first, last = max(0, top - HALO), min(height, bottom + HALO)
        excess = _excess(shown, self.lr, first, last, self.measure)  # (1, 1, n + 2 HALO, w)
        allowed = self.allowed[..., first:last, :]
        bad = ~(excess <= allowed)  # NaN is bad
        if not bad.any():
            return band
        near = F.max_pool2d(bad.float(), (1, 2 * NEAR + 1), stride=1, padding=(0, NEAR))
        near = F.max_pool2d(near, (2 * NEAR + 1, 1), stride=1, padding=(NEAR, 0)) > 0
        bad = (~(excess <= torch.where(near, allowed / 2, allowed))).float()
        wide = F.max_pool2d(bad, 2 * (WIDEN + FADE) + 1, stride=1, padding=WIDEN + FADE)
        weight = F.avg_pool2d(wide, 2 * FADE + 1, stride=1, padding=FADE, count_include_pad=False)
        weight = F.interpolate(weight, scale_factor=self.scale, mode="bilinear", align_corners=False)
        weight = weight[..., (top - first) * self.scale : (bottom - first) * self.scale, :]  # (1, 1, n*scale, W)
        bicubic = upsample_rows(self.lr, top, bottom, self.scale, self.upsampling)
        difference = (bicubic - band).abs().nan_to_num(nan=2).amax(1, keepdim=True).clamp(max=2) / 2
        difference = F.max_pool2d(torch.where(weight > 0, difference, 0), self.scale)[0, 0].cpu()
        band = torch.where(band.isfinite(), band, bicubic)
        self.returned[top:bottom] = torch.maximum(self.returned[top:bottom], difference)
        return torch.where(weight > 0, torch.lerp(band, bicubic, weight), band)

    def cell(self, top: int, bottom: int) -> Tensor:
        """Half the rounding cell of input rows, (1, 1, n, w), see `fidelity`; 0 where bicubic, softer, was returned."""
        return (self.returned[top:bottom] == 0).to(self.lr)[None, None] * (CELL * LEVEL)

    def share(self) -> float:
        """Share of the field of view, or of a frame without one, in which a sample was returned to bicubic, 0 to 1."""
        returned = self.returned.numpy() > 0
        if not returned.any():
            return 0.0
        pixels = (self.lr[0] * 127.5 + 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        share = float(returned[field_of_view(pixels, erode=0)].mean())
        return max(round(share, 4), 1e-4) if share else 0.0

    def mark(self, sigma: np.ndarray) -> np.ndarray:
        """`sigma` (H, W), raised to the difference between estimate and bicubic where bicubic was returned."""
        for row in self.returned.any(1).nonzero().flatten().tolist():
            here = slice(row * self.scale, (row + 1) * self.scale)
            sigma[here] = np.maximum(sigma[here], self.returned[row].repeat_interleave(self.scale).numpy())
        return sigma


def near_aperture(lr: Tensor) -> Tensor:
    """1 along the edge of the aperture and of the frame, else 0: (1, 3, h, w) in [-1, 1] -> (1, 1, h, w)."""
    bright = (lr.amax(1, keepdim=True) > DARK * LEVEL - 1).float()
    bright = F.max_pool2d(F.pad(bright, (BLOCK,) * 4), BLOCK, stride=1)  # beyond the frame it is dark
    return 1 + F.max_pool2d(-bright, 2 * RIM + BLOCK, stride=1, padding=RIM - 1)


def _excess(shown: Tensor, lr: Tensor, first: int, last: int, measure: Measure) -> Tensor:
    """What the measure says of the rows first..last, (1, 1, last - first, w), in the unit of the pictures."""
    if measure == "value":
        return (shown[..., first:last, :] - lr[..., first:last, :]).abs().amax(1, keepdim=True)
    half = SURROUND // 2
    start, end = max(0, first - half), min(lr.shape[-2], last + half)
    r, y = shown[..., start:end, :], lr[..., start:end, :]
    mean = F.avg_pool2d(r, SURROUND, stride=1, padding=half, count_include_pad=False)
    span = F.max_pool2d(y, WINDOW, 1, WINDOW // 2) + F.max_pool2d(-y, WINDOW, 1, WINDOW // 2)
    return ((r - mean).abs() - span)[..., first - start : last - start, :].amax(1, keepdim=True).clamp(min=0)
