"""Latents that are encoded once: with a learned codec, encoding two images costs more than a step of the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Encode = Callable[[int], tuple[Tensor, Tensor]]


class LatentCache:
    """x0 and y0 of the samples of a finite pool, by their position; kept in the memory of the CPU.

    Each sample is encoded by itself, so that its latents do not depend on the batch in which it came first.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def latents(self, positions: Sequence[int], encode: Encode, device: torch.device) -> tuple[Tensor, Tensor]:
        """x0 and y0 of a batch, (B, C, h, w) each; `encode(i)` makes those of its i-th sample, (1, C, h, w) each."""
        for i, position in enumerate(positions):
            if position not in self._kept:
                x0, y0 = encode(i)
                self._kept[position] = x0.cpu(), y0.cpu()
        pairs = [self._kept[position] for position in positions]
        x0, y0 = (torch.cat(parts).to(device) for parts in zip(*pairs, strict=True))
        return x0, y0

    def __len__(self) -> int:
        return len(self._kept)
