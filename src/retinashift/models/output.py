"""What every denoiser returns."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass
class DenoiserOutput(BaseOutput):
    """`sample`: the prediction, (B, C, H, W), in the units that the scheduler's prediction type names."""

    sample: Tensor
