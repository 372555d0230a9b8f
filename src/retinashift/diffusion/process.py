"""Residual-shifting diffusion as pure functions: its schedule, then its process.

Symbols, as in the paper: x0 the high-resolution image (or its latent), y0 the low-resolution image brought to the
same grid, e0 = y0 - x0 the residual, x_t the state, eta_t the shift, alpha_t = eta_t - eta_{t-1}, eta_{-1} = 0,
kappa the noise strength, p the power that sets how fast the residual is shifted; T steps are counted t = 0..T-1 (the
paper's t+1). All images share one shape (B, C, H, W); `eta` values broadcast against it.

Source: Yue, Wang, Loy, "ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting", NeurIPS
2023, section 2; the deterministic transition is SinSR's (Wang et al., CVPR 2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Spacing = Literal["trailing", "leading"]
Transition = Literal["ancestral", "deterministic"]
Prediction = Literal["x0", "residual", "noise", "scaled_noise"]
Eta = Tensor | float


def sqrt_eta_schedule(
    steps: int, *, kappa: float, power: float = 0.3, min_noise: float = 0.2, end: float = 0.99
) -> Tensor:
    """sqrt(eta_t) for t = 0..T-1, strictly increasing, geometric in a warped time.

    Args:
        steps: T, at least 2.
        kappa: noise strength, > 0.
        power: p > 0; smaller values shift earlier.
        min_noise: largest noise level kappa * sqrt(eta_0) that the first step may have, in (0, 1).
        end: sqrt(eta_{T-1}), below 1.

    Returns:
        float64 tensor of shape (T,).

    Raises:
        ValueError: a value outside its range.

    Source: paper, equations 9 and 10 (there written for sqrt(eta)); the official code has no further cap on eta_1.

    >>> [round(v, 4) for v in sqrt_eta_schedule(4, kappa=2.0).tolist()]
    [0.1, 0.5201, 0.7614, 0.99]
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; the schedule needs at least 2 (one step is a way to sample, not to train)")
    for name, value in (("kappa", kappa), ("power", power), ("min_noise", min_noise)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be greater than 0")
    first = min(min_noise / kappa, min_noise)
    if not first < end < 1:
        raise ValueError(f"end is {end}; sqrt(eta) must rise from {first:g} to an end below 1")
    beta = torch.linspace(0, 1, steps, dtype=torch.float64) ** power * (steps - 1)
    b0 = math.exp(math.log(end / first) / (steps - 1))
    sqrt_eta = first * b0**beta  # eqs. 9, 10
    sqrt_eta[0], sqrt_eta[-1] = first, end  # the ends are exact, not to within rounding
    return sqrt_eta  # (T,)


def respaced_timesteps(steps: int, count: int, spacing: Spacing = "trailing") -> list[int]:
    """Which of the T trained steps a sampler of `count` steps visits, ascending.

    "trailing" always keeps the last step, from which sampling starts, so the start has the noise the network was
    trained on; "leading" is the official respacing, int(T / count * i), which never keeps it unless count = T.

    Raises:
        ValueError: count outside 1..T.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"num_inference_steps is {count}; this checkpoint was trained with {steps}, so 1..{steps}")
    if spacing == "trailing":
        return [steps * (i + 1) // count - 1 for i in range(count)]
    return [int(steps / count * i) for i in range(count)]


def q_step(x_prev: Tensor, x0: Tensor, y0: Tensor, alpha_t: Eta, kappa: float, noise: Tensor) -> Tensor:
    """One forward step, x_t ~ q(x_t | x_{t-1}, x0, y0); `noise` is standard normal, shaped as x_prev."""
    return x_prev + alpha_t * (y0 - x0) + kappa * _sqrt(alpha_t) * noise  # eq. 1


def q_sample(x0: Tensor, y0: Tensor, eta_t: Eta, kappa: float, noise: Tensor) -> Tensor:
    """The marginal, x_t ~ q(x_t | x0, y0); `noise` is standard normal, shaped as x0."""
    return x0 + eta_t * (y0 - x0) + kappa * _sqrt(eta_t) * noise  # eq. 2


def prior_sample(y0: Tensor, eta_T: Eta, kappa: float, noise: Tensor) -> Tensor:
    """Where sampling starts: q_sample at the last step with the unknown x0 replaced by y0."""
    return y0 + kappa * _sqrt(eta_T) * noise  # eq. 3


def posterior(x_t: Tensor, x0: Tensor, eta_t: Eta, eta_prev: Eta, kappa: float) -> tuple[Tensor, Eta]:
    """Mean (as x_t) and variance (as eta) of q(x_{t-1} | x_t, x0, y0). At the first step (eta_prev = 0) it is x0, 0."""
    alpha_t = eta_t - eta_prev
    mean = (eta_prev / eta_t) * x_t + (alpha_t / eta_t) * x0  # eq. 6
    variance = kappa**2 * (eta_prev / eta_t) * alpha_t  # eq. 6
    return mean, variance


def ancestral_step(
    x_t: Tensor, x0: Tensor, y0: Tensor, eta_t: Eta, eta_prev: Eta, kappa: float, noise: Tensor
) -> Tensor:
    """x_{t-1} drawn from the posterior with x0 the network's estimate; `noise` is standard normal."""
    mean, variance = posterior(x_t, x0, eta_t, eta_prev, kappa)
    return mean + _sqrt(variance) * noise  # eq. 7


def deterministic_step(
    x_t: Tensor, x0: Tensor, y0: Tensor, eta_t: Eta, eta_prev: Eta, kappa: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """x_{t-1} on the marginal of step t-1 that keeps the noise of x_t: no randomness is added. SinSR, eq. 6.

    `kappa` and `noise` are there because every transition takes them; they have no effect.
    """
    m = _sqrt(eta_prev / eta_t)
    j = eta_prev - _sqrt(eta_prev * eta_t)
    k = 1 - eta_prev + _sqrt(eta_prev * eta_t) - m
    return k * x0 + m * x_t + j * y0


@dataclass(frozen=True)
class TransitionRule:
    """`step`: (x_t, x0, y0, eta_t, eta_prev, kappa, noise) -> x_{t-1}; `draws_noise`: else `noise` is None."""

    step: Callable[..., Tensor]
    draws_noise: bool


TRANSITIONS: dict[str, TransitionRule] = {
    "ancestral": TransitionRule(ancestral_step, draws_noise=True),
    "deterministic": TransitionRule(deterministic_step, draws_noise=False),
}


def training_target(kind: Prediction, x0: Tensor, y0: Tensor, noise: Tensor, eta_t: Eta, kappa: float) -> Tensor:
    """What the network is to predict, shaped as x0."""
    match kind:
        case "x0":
            return x0
        case "residual":
            return y0 - x0
        case "noise":
            return noise
        case "scaled_noise":
            return kappa * _sqrt(eta_t) * noise
    raise ValueError(f"prediction type {kind!r}; allowed are {', '.join(get_args(Prediction))}")


def predict_x0(kind: Prediction, prediction: Tensor, x_t: Tensor, y0: Tensor, eta_t: Eta, kappa: float) -> Tensor:
    """The estimate of x0 that a prediction of `kind` means: the inverse of `training_target`, shaped as x_t.

    The two noise kinds divide by 1 - eta_t, which at the last step is about 0.02: errors grow fifty-fold there.
    """
    match kind:
        case "x0":
            return prediction
        case "residual":
            return y0 - prediction
        case "noise":
            return (x_t - kappa * _sqrt(eta_t) * prediction - eta_t * y0) / (1 - eta_t)  # eq. 2 solved for x0
        case "scaled_noise":
            return (x_t - prediction - eta_t * y0) / (1 - eta_t)
    raise ValueError(f"prediction type {kind!r}; allowed are {', '.join(get_args(Prediction))}")


def elbo_weight(kind: Prediction, eta: Tensor, kappa: float) -> Tensor:
    """Weight of each step's squared error in the evidence bound, shape (T,) for `eta` of shape (T,).

    The bound's term t is |mean_q - mean_p|^2 / (2 variance_t), and the means differ by alpha_t / eta_t times the error
    of x0. The first step has no variance; it takes that of the second, as the official code does.
    """
    eta_prev = torch.cat([eta.new_zeros(1), eta[:-1]])
    alpha = eta - eta_prev
    variance = kappa**2 * eta_prev / eta * alpha
    variance[0] = variance[1]
    weight = 0.5 / variance * (alpha / eta) ** 2  # eq. 8, in x0
    if kind == "noise":
        weight = weight * kappa**2 * eta
    return weight / (1 - eta) ** 2 if kind in ("noise", "scaled_noise") else weight


def _sqrt(value: Eta) -> Eta:
    return value.sqrt() if isinstance(value, Tensor) else value**0.5
