"""What a caller is told while a sample is drawn: the steps of the chain, and how far the work is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Report = Callable[[dict[str, Any]], None]
Listener = Callable[[float], None]
StepEnd = Callable[[Any, int, int, dict[str, Any]], "dict[str, Any] | None"]
"""diffusers' form of a callback: (pipeline, step, timestep, tensors by name)."""


def at_step_end(pipeline: Any, call: StepEnd, names: Sequence[str], former: Report | None) -> Report:
    """A report that calls diffusers' form of callback, after `former`.

    Raises:
        ValueError: a tensor is asked for that is not offered, or, later, the callback changed one.
    """
    if not set(names) <= {"latents", "x0"}:
        raise ValueError(f"callback_on_step_end_tensor_inputs is {list(names)}; allowed are latents, x0")

    def report(state: dict[str, Any]) -> None:
        if former is not None:
            former(state)
        offered = {name: state["x0" if name == "x0" else "x_t"] for name in names}
        back = call(pipeline, state["step"], int(pipeline.scheduler.timesteps[state["step"]]), dict(offered)) or {}
        if any(back.get(name, tensor) is not tensor for name, tensor in offered.items()):
            raise ValueError("callback_on_step_end returned other tensors; they are read only, return {}")

    return report


class StepWatch:
    """Watches one sample.

    Args:
        height: rows of the low-resolution picture.
        steps: of the chain.
        span: shares of all work before and after this sample, 0..1.
        report: called after each step with {"step", "steps", "x0", "x_t"}, the state whole; or None, and then no state
            is held.
        progress: called with the share of the work that is done, whenever there are more rows; or None.

    >>> shares = []
    >>> watch = StepWatch(4, 1, (0.5, 1.0), None, shares.append)
    >>> watch.rows(0, torch.zeros(1, 48, 1, 9), torch.zeros(1, 48, 1, 9))
    >>> watch.rows(0, torch.zeros(1, 48, 3, 9), torch.zeros(1, 48, 3, 9))
    >>> shares
    [0.625, 1.0]
    """

    def __init__(
        self, height: int, steps: int, span: tuple[float, float], report: Report | None, progress: Listener | None
    ):
        self.height, self.steps, self.span, self.report, self.progress = height, steps, span, report, progress
        self._seen = 0
        self._held: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def rows(self, step: int, x0: Tensor, x_t: Tensor) -> None:
        """The next rows of a step, (1, C, n, w)."""
        self._count(x0.shape[-2])
        if self.report is None:
            return
        held = self._held.setdefault(step, [])
        held.append((x0, x_t))
        if sum(x.shape[-2] for x, _ in held) == self.height:
            whole = [torch.cat(parts, dim=-2) for parts in zip(*self._held.pop(step), strict=True)]
            self.report({"step": step, "steps": self.steps, "x0": whole[0], "x_t": whole[1]})

    def whole(self, step: int, x0: Tensor, x_t: Tensor) -> None:
        """A step at once, in whatever space its chain has."""
        self._count(self.height)
        if self.report is not None:
            self.report({"step": step, "steps": self.steps, "x0": x0, "x_t": x_t})

    def _count(self, rows: int) -> None:
        total = self.height * self.steps
        self._seen = min(total, self._seen + rows)  # work begins again where memory ran out
        if self.progress is not None:
            self.progress(self.span[0] + (self.span[1] - self.span[0]) * self._seen / total)
