"""The sampling loop. Everything that walks a chain drives `sample`, or for bands of rows its step, `scheduler.step`.

Symbols as in `process`: y0 the low-resolution image on the grid of the state, x_t the state, x0 its estimate.

Source: Yue, Wang, Loy, "ResShift", NeurIPS 2023, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from retinashift.diffusion.scheduler import ResShiftScheduler

Predict = Callable[[Tensor, int], Tensor]
"""(x_t as the scheduler scales it, t) -> the network's prediction, shaped as x_t."""
Draw = Callable[[int], Tensor]
"""The noise of a draw, shaped as y0: draw 0 makes x_T, draw i belongs to step i."""


def sample(
    scheduler: ResShiftScheduler, predict: Predict, y0: Tensor, draw: Draw | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x_{t-1}, x0) after each step: the state, and the estimate that it was made from. The last two are equal.

    Args:
        scheduler: its `set_timesteps` chose the steps.
        predict: one call of the network.
        y0: (B, C, h, w).
        draw: standard normal noise; also drawn for steps that add none, as in the official program. None, for chains
            of one step: x_T is y0, its own mean, so that the estimate is a function of the input.
    """
    x_t = scheduler.init_noise(y0, noise=draw(0)) if draw else y0  # eq. 3
    for number, t in enumerate(scheduler.timesteps.tolist(), start=1):
        prediction = predict(scheduler.scale_model_input(x_t, t), t)  # (B, C, h, w)
        noise = draw(number) if draw else None
        x_t, x0 = scheduler.step(prediction, t, x_t, y0, noise=noise, return_dict=False)  # eqs. 6, 7
        yield x_t, x0


def boost_detail(sample: Tensor, mean: Tensor, gain: float) -> Tensor:
    """mean + gain * (sample - mean): a sample whose detail, its difference from the posterior mean, is stronger.

    A chain of few steps, trained by squared error, draws samples that lie too near their mean: the detail is in the
    right places and too faint. The gain that corrects this is measured on validation photographs.

    Args:
        sample: x0 at the end of the chain. mean: the estimate of x0 at its first step. Both in the space of the chain.
    """
    return mean + gain * (sample - mean)
