"""Random streams that are a pure function of (seed, position).

What is drawn then depends neither on batch size, nor on the order of work, nor on how many processes share it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 32
"""Side of the squares in which a noise field is drawn."""


def stream_generator(seed: int, position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of stream `position`, seeded through SeedSequence so that neighbouring positions are independent.

    Both numbers are non-negative; ValueError otherwise.
    """
    state = int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0]) & (2**63 - 1)
    return torch.Generator(device).manual_seed(state)


def noise_window(seed: int, draw: int, channels: int, rows: range, columns: range) -> Tensor:
    """A window of an endless field of standard normal noise, (1, channels, len(rows), len(columns)) float32 on the CPU.

    The field of (seed, draw) is the same whatever windows are cut from it: a picture may be computed piece by piece,
    and its noise is never held whole.

    Args:
        seed: of the picture, non-negative.
        draw: number of the field, such as the step of a chain; non-negative.
        channels: a field belongs to its number of channels.
        rows, columns: with steps of 1, from 0 on.

    >>> whole = noise_window(0, 3, 2, range(100), range(90))
    >>> bool((noise_window(0, 3, 2, range(50, 80), range(60, 70)) == whole[..., 50:80, 60:70]).all())
    True
    """
    window = torch.empty(1, channels, len(rows), len(columns))
    for top in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        for left in range(columns.start // BLOCK * BLOCK, columns.stop, BLOCK):
            place = (draw << 48) + (top // BLOCK << 24) + left // BLOCK
            block = torch.randn(channels, BLOCK, BLOCK, generator=stream_generator(seed, place))
            y, x = max(top, rows.start), max(left, columns.start)
            piece = block[:, y - top : rows.stop - top, x - left : columns.stop - left]  # (channels, h, w)
            window[0, :, y - rows.start :, x - columns.start :][:, : piece.shape[1], : piece.shape[2]] = piece
    return window
