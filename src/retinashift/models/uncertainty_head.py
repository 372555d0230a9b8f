"""How far a result may lie from the truth: a head predicts the scale of each pixel's error, a calibration its meaning.

The head reads the features of the network call that makes the default result. Its scale s is no error bar yet. On
photographs whose truth is known, conformal quantiles q of |error| / s are measured, once for each checkpoint, and kept
in its folder: |error| <= q(level) s holds for that share of the values. The map is sigma = q(90 %) s / 1.645, so that
1.645 sigma on each side of the result covers 90 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

LEAST, MOST = -6.5, 0.0
"""Range of the logarithm of a scale: from 0.4 of 255 levels, about the rounding of an 8-bit picture, to full scale."""
LEVEL, Z = 0.9, 1.6448536269514722
"""Share of values that the stated interval covers, and half its width in standard deviations."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Shares whose quantiles a calibration keeps."""


class UncertaintyHead(ModelMixin, ConfigMixin):
    """Two convolutions on what `LightNet.features` returns: one scale for each result pixel of an input pixel."""

    @register_to_config
    def __init__(self, width: int = 96, hidden: int = 64, factor: int = 4):
        super().__init__()
        self.read = nn.Conv2d(width, hidden, 3, padding=1)
        self.write = nn.Conv2d(hidden, factor**2, 3, padding=1)
        nn.init.constant_(self.write.get_parameter("bias"), -5.0)  # 1.7 levels, a usual error

    def forward(self, features: Tensor) -> Tensor:
        """Logarithm of the scale in shares of full scale, (B, width, h, w) -> (B, factor**2, h, w) float32."""
        return clip_scale(self.write(F.gelu(self.read(features))))


def clip_scale(log_scale: Tensor) -> Tensor:
    """Logarithms of scales in float32, within `LEAST` and `MOST`."""
    return log_scale.float().clamp(LEAST, MOST)


class ScaleMap:
    """Scales of the errors of one picture, which rows of the head's output are written into as they come.

    Args:
        height, width: of the input.
        factor: result pixels for each of the input, a side.
    """

    def __init__(self, height: int, width: int, factor: int):
        self.factor, self.row = factor, 0  # row: the next one; 0 again where the rows come again from the top
        self.values = torch.empty(height * factor, width * factor)  # (H, W) in shares of full scale

    def write(self, log_scale: Tensor) -> None:
        """The next rows, (1, factor**2, n, w), logarithms."""
        rows = F.pixel_shuffle(log_scale, self.factor)[0, 0].exp()  # (n*factor, W)
        self.values[self.row : self.row + len(rows)] = rows.cpu()
        self.row += len(rows)

    def sigma(self, lr: Tensor, calibration: "Calibration", softness: float = 1.0) -> np.ndarray:
        """The standard deviation of each pixel, (H, W), in the memory of the scales.

        Where the 5x5 input pixels around are equal it is the least: nothing there can be misplaced.

        Args:
            lr: the input, (1, 3, h, w).
            softness: how many times larger it is because the input is softer than those of the calibration.
        """
        span = F.max_pool2d(lr, 5, 1, 2) + F.max_pool2d(-lr, 5, 1, 2)
        flat = (span.amax(1, keepdim=True) == 0).float()  # (1, 1, h, w)
        flat = F.interpolate(flat, scale_factor=self.factor)[0, 0].cpu()
        self.values.mul_(softness)[flat > 0] = math.exp(LEAST)
        return self.values.mul_(calibration.factor).numpy()


@dataclass(frozen=True)
class Calibration:
    """What the scales of a checkpoint's head mean."""

    quantiles: dict[float, float]
    """By share of the values: |error| / s that this share does not exceed; rising."""
    protocol: dict[str, Any]
    """What it was measured on."""
    softness: Sequence[Sequence[float]] | None = None
    """How many times larger sigma is of an input softer than those, as a `Curve` over its finest energy."""

    @property
    def factor(self) -> float:
        """sigma / s."""
        return self.quantiles[LEVEL] / Z

    def half_widths(self) -> dict[float, float]:
        """By share of the values: half the width of the interval that covers it, in sigma."""
        return {level: quantile / self.factor for level, quantile in self.quantiles.items()}

    def to_config(self) -> dict[str, Any]:
        """Plain data for a checkpoint's model_index.json."""
        return asdict(self) | {"quantiles": {str(level): value for level, value in self.quantiles.items()}}

    @classmethod
    def from_config(cls, plain: Mapping[str, Any]) -> "Calibration":
        """What `to_config` gave. ValueError if it is something else."""
        try:
            quantiles = {float(level): float(value) for level, value in plain["quantiles"].items()}
            values = [quantiles[level] for level in sorted(quantiles)]
            if values != sorted(values) or values[0] < 0 or not 0 < quantiles[LEVEL] <= values[-1] < np.inf:
                raise ValueError(f"quantiles {quantiles}")
            curve = [[float(energy), float(factor)] for energy, factor in plain.get("softness") or ()]
            if curve != sorted(curve) or not all(1 <= factor < 100 for _, factor in curve):
                raise ValueError(f"softness {curve}")
            return cls(quantiles, dict(plain["protocol"]), curve or None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"the checkpoint's calibration cannot be read ({error}); calibrate it again") from None


UNCALIBRATED = Calibration(dict.fromkeys(LEVELS, Z), {})
"""With it, sigma is the scale itself."""


def fit_quantiles(ratios: np.ndarray, weights: np.ndarray) -> dict[float, float]:
    """The quantiles of |error| / s at `LEVELS`.

    Args:
        ratios: (N,), at least 0.
        weights: (N,), what each counts.

    Raises:
        ValueError: fewer than 1,000 values.
    """
    if len(ratios) < 1000:
        raise ValueError(f"{len(ratios)} values; a calibration needs at least 1,000")
    order = np.argsort(ratios, kind="stable")
    share = np.cumsum(weights[order])
    places = np.searchsorted(share, np.asarray(LEVELS) * share[-1])
    return {level: float(ratios[order[place]]) for level, place in zip(LEVELS, places, strict=True)}
