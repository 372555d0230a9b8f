"""The exponential moving average of the weights, which is what is validated and shipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def average(shadow: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """shadow <- decay * shadow + (1 - decay) * current, in place; what is no float is copied."""
    floats = [name for name, value in shadow.items() if value.is_floating_point()]
    torch._foreach_lerp_([shadow[name] for name in floats], [current[name] for name in floats], 1 - decay)
    for name in shadow.keys() - set(floats):
        shadow[name].copy_(current[name])
