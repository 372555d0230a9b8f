"""Random streams that are a pure function of (seed, position).

What is drawn then depends neither on batch size, nor on the order of work, nor on how many processes share it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def stream_generator(
    seed: int, position: int | tuple[int, ...], device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of stream `position`, seeded through SeedSequence so that neighbouring positions are independent.

    All numbers are non-negative; ValueError otherwise.
    """
    numbers = position if isinstance(position, tuple) else (position,)
    state = int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0]) & (2**63 - 1)
    return torch.Generator(device).manual_seed(state)


def normal_rows(seed: int, stream: tuple[int, ...], top: int, bottom: int, channels: int, width: int) -> Tensor:
    """Rows top..bottom of a field of standard normal noise, (1, channels, bottom - top, width), float32 on the CPU.

    Every row has a stream of its own, so a piece can be drawn without the rest, and is the same on every device.
    """
    rows = [
        torch.randn(channels, width, generator=stream_generator(seed, (*stream, row))) for row in range(top, bottom)
    ]  # (channels, width) each
    return torch.stack(rows, dim=1)[None]
