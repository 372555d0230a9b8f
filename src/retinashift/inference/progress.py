"""What a caller learns while a sample is drawn: the steps of the chain, and how far the work is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

StepEnd = Callable[[Any, int, int, dict[str, Any]], "dict[str, Any] | None"]
"""diffusers' form of a callback: (pipeline, step, timestep, tensors by name)."""
Report = Callable[[int, Tensor, Tensor], None]
"""(step, x0, x_t), both whole."""
Listener = Callable[[float], None]


def at_step_end(pipeline: Any, call: StepEnd, names: Sequence[str]) -> Report:
    """A report that calls diffusers' form of callback.

    Raises:
        ValueError: a tensor is asked for that is not offered, or, later, the callback changed one.
    """
    if not set(names) <= {"latents", "x0"}:
        raise ValueError(f"callback_on_step_end_tensor_inputs is {list(names)}; allowed are latents, x0")

    def report(step: int, x0: Tensor, x_t: Tensor) -> None:
        offered = {name: {"latents": x_t, "x0": x0}[name] for name in names}
        back = call(pipeline, step, int(pipeline.scheduler.timesteps[step]), dict(offered)) or {}
        if any(back.get(name, tensor) is not tensor for name, tensor in offered.items()):
            raise ValueError("callback_on_step_end returned other tensors; they are read only, return {}")

    return report


class StepWatch:
    """Watches all samples of a call, one after the other.

    Args:
        samples: their number.
        report: called after each step; or None, and then no state is held.
        progress: called with the share of the work that is done, whenever there are more rows; or None.

    >>> shares = []
    >>> watch = StepWatch(1, None, shares.append)
    >>> watch.begin(height=4, steps=1)
    >>> watch.rows(0, torch.zeros(1, 48, 1, 9), torch.zeros(1, 48, 1, 9))
    >>> watch.rows(0, torch.zeros(1, 48, 3, 9), torch.zeros(1, 48, 3, 9))
    >>> shares
    [0.25, 1.0]
    """

    def __init__(self, samples: int = 1, report: Report | None = None, progress: Listener | None = None):
        self.samples, self.report, self.progress = samples, report, progress
        self._done = -1
        self._held: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def begin(self, height: int, steps: int) -> None:
        """The next sample begins: rows of its state, and steps of its chain."""
        self.height, self._total, self._seen, self._done = height, height * steps, 0, self._done + 1

    def restart(self) -> None:
        """The rows of the sample come from the top, perhaps again because memory ran out."""
        self._held.clear()

    def rows(self, step: int, x0: Tensor, x_t: Tensor) -> None:
        """The next rows of a step, (1, C, n, w)."""
        self._seen = min(self._total, self._seen + x0.shape[-2])  # rows that come again do not count beyond the whole
        if self.progress is not None:
            self.progress((self._done + self._seen / self._total) / self.samples)
        if self.report is not None:
            held = self._held.setdefault(step, [])
            held.append((x0, x_t))
            if sum(x.shape[-2] for x, _ in held) == self.height:
                whole = [torch.cat(parts, dim=-2) for parts in zip(*self._held.pop(step), strict=True)]
                self.report(step, whole[0], whole[1])
