"""The sampling loop, and random streams that are a pure function of (seed, position).

Everything that walks a chain drives `sample`, or for bands of rows its step, `scheduler.step`. What a stream draws
depends neither on batch size, nor on the order of work, nor on how many processes share it.

Symbols as in `process`: y0 the low-resolution image on the grid of the state, x_t the state, x0 its estimate.

Source: Yue, Wang, Loy, "ResShift", NeurIPS 2023, algorithm 2.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
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


def stream_generator(seed: int, position: int | tuple[int, ...], device: torch.device | str = "cpu") -> torch.Generator:
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
    streams = [stream_generator(seed, (*stream, row)) for row in range(top, bottom)]
    return torch.stack([torch.randn(channels, width, generator=each) for each in streams], dim=1)[None]


def noise_seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """One seed per image, from which its noise streams come, so that its noise depends on nothing beside it.

    Args:
        generator: one for all images, which then share a seed; a list with one each; or None, one seeded 0.

    Raises:
        ValueError: another number of generators than of images.
    """
    given = generator if isinstance(generator, Sequence) else [generator or torch.Generator().manual_seed(0)]
    if isinstance(generator, Sequence) and len(given) != count:
        raise ValueError(f"{len(given)} generators were given for {count} images; give one each, or one for all")
    seeds = [int(torch.randint(2**62, (), generator=each, device=each.device)) for each in given]
    return seeds if isinstance(generator, Sequence) else seeds * count
