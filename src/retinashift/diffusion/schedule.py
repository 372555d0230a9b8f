"""The geometric noise schedule of ResShift.

Symbols: T steps counted t = 0..T-1 (the paper's t+1), `sqrt_eta[t]` the square root of eta_t, `kappa` the noise
strength, `power` the paper's p, which sets how fast the residual is shifted.

Source: Yue, Wang, Loy, "ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting",
NeurIPS 2023, section 2.3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["trailing", "leading"]


def sqrt_eta_schedule(
    steps: int, *, kappa: float, power: float = 0.3, min_noise: float = 0.2, end: float = 0.99
) -> Tensor:
    """sqrt(eta_t) for t = 0..T-1, strictly increasing, geometric in a warped time.

    Args:
        steps: T, at least 2.
        kappa: noise strength, > 0.
        power: p > 0; smaller values shift earlier.
        min_noise: largest noise level kappa * sqrt(eta_0) that the first step may have, in (0, 1).
        end: sqrt(eta_{T-1}), below 1.

    Returns:
        float64 tensor of shape (T,).

    Raises:
        ValueError: a value outside its range.

    Source: paper, equations 9 and 10 (there written for sqrt(eta)); the official code has no further cap on eta_1.

    >>> [round(v, 4) for v in sqrt_eta_schedule(4, kappa=2.0).tolist()]
    [0.1, 0.5201, 0.7614, 0.99]
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; the schedule needs at least 2 (one step is a way to sample, not to train)")
    for name, value in (("kappa", kappa), ("power", power), ("min_noise", min_noise)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be greater than 0")
    first = min(min_noise / kappa, min_noise)
    if not first < end < 1:
        raise ValueError(f"end is {end}; sqrt(eta) must rise from {first:g} to an end below 1")
    beta = torch.linspace(0, 1, steps, dtype=torch.float64) ** power * (steps - 1)
    b0 = math.exp(math.log(end / first) / (steps - 1))
    sqrt_eta = first * b0**beta  # eqs. 9, 10
    sqrt_eta[0], sqrt_eta[-1] = first, end  # the ends are exact, not to within rounding
    return sqrt_eta  # (T,)


def respaced_timesteps(steps: int, count: int, spacing: Spacing = "trailing") -> list[int]:
    """Which of the T trained steps a sampler of `count` steps visits, ascending.

    "trailing" always keeps the last step, from which sampling starts, so the start has the noise the network was
    trained on; "leading" is the official respacing, int(T / count * i), which never keeps it unless count = T.

    Raises:
        ValueError: count outside 1..T.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"num_inference_steps is {count}; this checkpoint was trained with {steps}, so 1..{steps}")
    if spacing == "trailing":
        return [steps * (i + 1) // count - 1 for i in range(count)]
    return [int(steps / count * i) for i in range(count)]
