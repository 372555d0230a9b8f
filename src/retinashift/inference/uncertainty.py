"""Where the model invents: there samples of the chain disagree, and a calibration says what their spread means.

The spread of a model's own samples is no error bar: it is too small wherever the model is too sure. On photographs
whose truth is known, a curve from spread to error is therefore measured, once for each checkpoint, and kept in its
folder; `sigma` is the spread seen through that curve: |x0 - mean| <= 1.645 sigma holds for 90 % of the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL = 0.9
"""Share of values that the stated interval covers."""
Z = 1.6448536269514722
"""Half width of that interval in standard deviations, were errors normal."""
NEIGHBOURS = 5
"""Variances are averaged over so many pixels in each direction: of a few samples, one pixel's is a guess."""
KNOTS = 24
BAND = 256


class SampleMean:
    """Mean and spread of samples that come in bands of rows, in memory that does not grow with their number.

    Args:
        shape: (C, H, W) of a sample.
        spread: whether the spread is asked for; the mean alone needs half the memory.
    """

    def __init__(self, shape: tuple[int, int, int], *, spread: bool):
        self.mean = torch.zeros(1, *shape)
        self.squares = torch.zeros(1, 1, *shape[1:]) if spread else None
        self.count = 0

    @property
    def nbytes(self) -> int:
        return self.mean.nbytes + (0 if self.squares is None else self.squares.nbytes)

    def add(self, sample: Iterator[Tensor], way: int = 0) -> None:
        """One sample, (1, C, n, W) at a time, top to bottom, turned one `way`. Welford's recurrence."""
        self.count += 1
        mean, squares = (x.mT if x is not None and way & 4 else x for x in (self.mean, self.squares))  # views
        assert mean is not None
        top = 0
        for rows in sample:
            rows = rows.cpu().flip([side for bit, side in ((2, -2), (1, -1)) if way & bit])
            bottom = top + rows.shape[-2]
            here = slice(mean.shape[-2] - bottom, mean.shape[-2] - top) if way & 2 else slice(top, bottom)
            difference = rows - mean[..., here, :]
            mean[..., here, :] += difference / self.count
            if squares is not None:
                further = rows - mean[..., here, :]
                squares[..., here, :] += (difference * further).mean(1, keepdim=True)
            top = bottom

    def bands(self) -> Iterator[Tensor]:
        """The mean, in bands of rows."""
        return iter(self.mean.split(BAND, dim=-2))

    def spread(self) -> Tensor:
        """(H, W): root of the variance over samples, averaged over channels and neighbours; 0 where none differ.

        The samples are in [-1, 1]; the spread is in shares of full scale, [0, 1].
        """
        if self.squares is None or self.count < 2:
            raise ValueError(f"the spread of {self.count} samples; at least 2 are needed, and spread=True")
        halo, height = NEIGHBOURS // 2, self.squares.shape[-2]
        result = torch.empty(self.squares.shape[-2:])
        for top in range(0, height, BAND):
            bottom = min(height, top + BAND)
            first, last = max(0, top - halo), min(height, bottom + halo)
            variance = self.squares[..., first:last, :] / (4 * (self.count - 1))
            smooth = F.avg_pool2d(variance, NEIGHBOURS, stride=1, padding=halo, count_include_pad=False)
            smooth = torch.where(variance > 0, smooth, 0)  # where samples agree, neighbours add no spread
            result[top:bottom] = smooth[0, 0, top - first : bottom - first].clamp(min=0).sqrt()
        return result


@dataclass(frozen=True)
class Calibration:
    """What a spread means, for one checkpoint.

    `curves`: by number of samples, knots (spreads, sigmas), both rising, in shares of full scale.
    """

    steps: int
    """Network calls a sample."""
    curves: dict[int, tuple[tuple[float, ...], tuple[float, ...]]]
    protocol: dict[str, Any]
    """What it was measured on."""

    def sigma(self, spread: np.ndarray, samples: int) -> np.ndarray:
        """The calibrated standard deviation, as `spread`; 0 stays 0.

        The curve is that of the largest number of samples that was measured and is not above `samples`. Beyond its
        last knot it goes on in proportion.

        Raises:
            ValueError: fewer samples than were measured.
        """
        fitting = [count for count in self.curves if count <= samples]
        if not fitting:
            raise ValueError(f"{samples} samples; this checkpoint is calibrated for {min(self.curves)} or more")
        knots, values = (np.asarray(column) for column in self.curves[max(fitting)])
        result = np.empty(spread.shape, np.float32)
        for top in range(0, len(spread), BAND):
            rows = spread[top : top + BAND]
            inside = np.interp(rows, knots, values)
            beyond = np.where(rows > knots[-1], rows * (values[-1] / knots[-1]), inside)
            result[top : top + BAND] = np.where(rows == 0, 0, beyond)
        return result

    def to_config(self) -> dict[str, Any]:
        """Plain data for a checkpoint's model_index.json."""
        plain = asdict(self)
        plain["curves"] = {str(count): [list(column) for column in curve] for count, curve in self.curves.items()}
        return plain

    @classmethod
    def from_config(cls, plain: Mapping[str, Any]) -> Calibration:
        """What `to_config` gave. ValueError if it is something else."""
        try:
            curves = {}
            for count, columns in plain["curves"].items():
                spreads, sigmas = (tuple(map(float, column)) for column in columns)
                if not spreads or len(spreads) != len(sigmas) or list(spreads) != sorted(spreads) or spreads[0] < 0:
                    raise ValueError(f"knots of {count} samples")
                curves[int(count)] = spreads, sigmas
            return cls(int(plain["steps"]), curves, dict(plain["protocol"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the checkpoint's calibration cannot be read ({error}); calibrate it again") from None


def fit_curve(spreads: np.ndarray, errors: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the rising curve by which 90 % of the errors are within Z sigma, at every spread.

    Args:
        spreads: (N,) of values where something was sampled, above 0.
        errors: (N,) |x0 - mean|, in the same unit.

    Returns:
        (spreads, sigmas): of `KNOTS` groups of as many values, the median spread and the 90th percentile of the error,
        divided by Z; made to rise by isotonic regression.
    """
    from scipy.optimize import isotonic_regression  # slow to import, and only calibration needs it

    if len(spreads) < 10 * KNOTS:
        raise ValueError(f"{len(spreads)} values; a calibration needs at least {10 * KNOTS}")
    order = np.argsort(spreads, kind="stable")
    knots, values = [], []
    for group in np.array_split(order, KNOTS):
        knots.append(float(np.median(spreads[group])))
        values.append(float(np.quantile(errors[group], LEVEL)) / Z)
    return tuple(knots), tuple(isotonic_regression(values).x.tolist())


def coverage(errors: np.ndarray, sigma: np.ndarray, half_widths: Iterable[float]) -> list[float]:
    """Share of the values with |error| <= k sigma, for each k.

    Args:
        errors, sigma: of the same shape; only values with sigma above 0 count.
    """
    known = sigma > 0
    ratio = np.abs(errors[known]) / sigma[known]
    return [float((ratio <= k).mean()) if len(ratio) else float("nan") for k in half_widths]
