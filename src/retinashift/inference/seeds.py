"""From a caller's generator to the seeds of noise streams, so that an image's noise depends on nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def noise_seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """One number per image from which its noise streams come.

    Raises:
        ValueError: another number of generators than of images.
    """
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise ValueError(
                f"{len(generator)} generators were given for {count} images; give one each, or one for all"
            )
        return [_draw_seed(g) for g in generator]
    return [_draw_seed(generator or torch.Generator().manual_seed(0))] * count


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
