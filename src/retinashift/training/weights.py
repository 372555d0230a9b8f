"""The weights of a run, trained and averaged, and the rate at which they are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from retinashift.training.settings import OptimSettings, TrainConfig

State = dict[str, Tensor]


class Weights:
    """A network in training, and the average of its weights, which is validated and saved as the checkpoint.

    Args:
        module: what is trained, on its device; its average starts at its weights.
        optim: decay of the average.
    """

    def __init__(self, module: nn.Module, optim: OptimSettings):
        self.module, self._optim = module, optim
        # the same tensors throughout: asking the module for them at each step takes longer than averaging
        self._current: State = module.state_dict()
        self._average = _copied(self._current)

    def load(self, current: State, averaged: State) -> None:
        """Take both from a saved state."""
        self.module.load_state_dict(current)
        self._average = {name: value.to(self._current[name].device) for name, value in averaged.items()}

    def to_save(self) -> tuple[State, State]:
        """Copies of the trained and of the averaged weights, on the CPU."""
        trained, averaged = (
            {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
            for weights in (self._current, self._average)
        )
        return trained, averaged

    def update_average(self, step: int) -> None:
        """Move the average towards the weights after a step, counted from 0; the decay may rise from 0.1."""
        rising = (1 + step) / (10 + step) if self._optim.ema_warmup else 1.0
        average(self._average, self._current, min(self._optim.ema, rising))

    def are_finite(self) -> bool:
        """Whether all weights and their average are numbers."""
        return all(bool(value.isfinite().all()) for value in (*self._current.values(), *self._average.values()))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the module holds the average, and is in evaluation mode."""
        kept = _copied(self._current)
        self.module.load_state_dict(self._average)
        self.module.eval()
        try:
            yield
        finally:
            self.module.load_state_dict(kept)
            self.module.train()


@torch.no_grad()
def average(averaged: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * current, in place; integers are copied."""
    floats = [name for name, value in averaged.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - decay)
    for name in averaged.keys() - set(floats):
        averaged[name].copy_(current[name])


def _copied(weights: Mapping[str, Tensor]) -> State:
    return {name: value.detach().clone() for name, value in weights.items()}


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The rate of a step: linear warm-up times a cosine as `progress` goes from 0 to 1, or `published_rate`."""
    optim = config.optim
    if optim.schedule == "published":
        last = optim.learning_rate_end
        return published_rate(step, optim.learning_rate, last, config.run.steps, optim.warmup_steps)
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warm * (optim.learning_rate_end + (optim.learning_rate - optim.learning_rate_end) * cosine)


def published_rate(step: int, base: float, last: float, steps: int, warmup: int) -> float:
    """The learning rate of the official training at a step counted from 0.

    It is set after a step for the next one, so the first step runs at the full rate; then a linear warm-up, and a
    cosine from `base` to `last` over what remains.
    """
    if step == 0:
        return base
    if step <= warmup:
        return base * step / warmup
    return last + (base - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
