"""Random streams that are a pure function of (seed, position).

What is drawn then depends neither on batch size, nor on the order of work, nor on how many processes share it.
"""

from __future__ import annotations

import numpy as np
import torch


def stream_generator(seed: int, position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of stream `position`, seeded through SeedSequence so that neighbouring positions are independent.

    Both numbers are non-negative; ValueError otherwise.
    """
    state = int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0]) & (2**63 - 1)
    return torch.Generator(device).manual_seed(state)
