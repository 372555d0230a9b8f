"""ResShiftScheduler: the chain behind diffusers' scheduler contract.

One thing differs from noise-to-image schedulers: the chain ends at the low-resolution image, so `init_noise`,
`add_noise` and `step` also take y0, the low-resolution image (or its latent) on the grid of the state.
"""

from typing import Literal, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from retinashift.diffusion import process
from retinashift.diffusion.process import TRANSITIONS, Prediction, Spacing, Transition, sqrt_eta_schedule

InputScaling = Literal["none", "latent", "pixel"]
Generators = torch.Generator | list[torch.Generator] | None


class ResShiftScheduler(SchedulerMixin, ConfigMixin):
    """Residual-shifting chain. Steps are counted t = 0..T-1; `timesteps` run downwards.

    Args:
        num_train_timesteps: T, at least 2.
        kappa, power, min_noise, end: see `sqrt_eta_schedule`.
        prediction_type: what the network predicts.
        input_scaling: divisor of x_t before the network. "latent": sqrt(kappa^2 eta_t + 1), for latents of unit
            variance (official checkpoints); "pixel": 3 kappa sqrt(eta_t) + 1, a range; "none".
        spacing: which steps fewer than T keep, see `respaced_timesteps`.
        transition: "ancestral" draws from the posterior, "deterministic" adds no noise.
        clip_x0: clamp the estimate of x0 to [-1, 1] at every step (pixel-space chains).

    Raises:
        ValueError: a value outside its range, named.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 4,
        kappa: float = 2.0,
        power: float = 0.3,
        min_noise: float = 0.2,
        end: float = 0.99,
        prediction_type: Prediction = "x0",
        input_scaling: InputScaling = "latent",
        spacing: Spacing = "trailing",
        transition: Transition = "ancestral",
        clip_x0: bool = False,
    ):
        for name, value, allowed in (
            ("prediction_type", prediction_type, get_args(Prediction)),
            ("input_scaling", input_scaling, get_args(InputScaling)),
            ("spacing", spacing, get_args(Spacing)),
            ("transition", transition, tuple(TRANSITIONS)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")
        self.sqrt_eta = sqrt_eta_schedule(num_train_timesteps, kappa=kappa, power=power, min_noise=min_noise, end=end)
        self.eta = self.sqrt_eta**2  # (T,) float64
        self.set_timesteps(num_train_timesteps)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None, transition: Transition | None = None
    ) -> None:
        """Choose the steps that sampling visits, and how it goes from one to the next (None: as configured).

        Raises:
            ValueError: steps outside 1..T.
        """
        self.transition = transition or self.config.transition
        kept = process.respaced_timesteps(self.config.num_train_timesteps, num_inference_steps, self.config.spacing)
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.tensor(kept[::-1], device=device)
        self._eta_prev = dict(zip(kept, [0.0, *(float(self.eta[t]) for t in kept[:-1])], strict=True))
        self.init_noise_sigma = float(self.config.kappa * self.sqrt_eta[kept[-1]])

    def scale_model_input(self, sample: Tensor, timestep: Tensor | int) -> Tensor:
        """What the network sees of x_t; the condition is never scaled. `timestep` is one number or (B,)."""
        kappa = self.config.kappa
        if self.config.input_scaling == "latent":
            return sample / (self._at(self.eta, timestep, sample) * kappa**2 + 1).sqrt()
        if self.config.input_scaling == "pixel":
            return sample / (self._at(self.sqrt_eta, timestep, sample) * 3 * kappa + 1)
        return sample

    def draws_noise(self, timestep: int) -> bool:
        """Whether `step` adds noise at this step."""
        return TRANSITIONS[self.transition].draws_noise and self._eta_prev[timestep] > 0

    def init_noise(self, y0: Tensor, generator: Generators = None, noise: Tensor | None = None) -> Tensor:
        """x_T ~ N(y0, kappa^2 eta_T I), where sampling starts; shaped as y0. `noise` replaces the generator."""
        if noise is None:
            noise = randn_tensor(y0.shape, generator=generator, device=y0.device, dtype=y0.dtype)
        return process.prior_sample(y0, float(self.eta[int(self.timesteps[0])]), self.config.kappa, noise)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor, y0: Tensor) -> Tensor:
        """x_t from x0 by the marginal; `timesteps` (B,)."""
        eta_t = self._at(self.eta, timesteps, original_samples)
        return process.q_sample(original_samples, y0, eta_t, self.config.kappa, noise)

    def target(self, x0: Tensor, y0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is trained to return; shaped as x0."""
        eta_t = self._at(self.eta, timesteps, x0)
        return process.training_target(self.config.prediction_type, x0, y0, noise, eta_t, self.config.kappa)

    def loss_weight(self) -> Tensor:
        """Weights of the evidence bound by step, (T,) float64, scaled to mean 1."""
        weight = process.elbo_weight(self.config.prediction_type, self.eta, self.config.kappa)
        return weight / weight.mean()

    def predict_x0(self, model_output: Tensor, timestep: Tensor | int, sample: Tensor, y0: Tensor) -> Tensor:
        """The estimate of x0 that a network output means; shaped as sample."""
        eta_t = self._at(self.eta, timestep, sample)
        x0 = process.predict_x0(self.config.prediction_type, model_output, sample, y0, eta_t, self.config.kappa)
        return x0.clamp(-1, 1) if self.config.clip_x0 else x0

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        y0: Tensor,
        generator: Generators = None,
        noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """x_t -> x_{t-1}, `prev_sample`, and the estimate of x0 it was made from; at the last step they are equal.

        Raises:
            ValueError: the timestep is not among those of `set_timesteps`.
        """
        t = int(timestep)
        if t not in self._eta_prev:
            raise ValueError(f"timestep {t} is not visited; set_timesteps chose {sorted(self._eta_prev, reverse=True)}")
        eta_t, eta_prev = float(self.eta[t]), self._eta_prev[t]
        x_prev = x0 = self.predict_x0(model_output, t, sample, y0)
        if self.draws_noise(t) and noise is None:
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        if eta_prev:
            x_prev = TRANSITIONS[self.transition].step(sample, x0, y0, eta_t, eta_prev, self.config.kappa, noise)
        return DDPMSchedulerOutput(x_prev, x0) if return_dict else (x_prev, x0)

    @staticmethod
    def _at(table: Tensor, timestep: Tensor | int, like: Tensor) -> Tensor:
        """table[timestep] as (B, 1, 1, 1) or a scalar, to be used with `like`, in its dtype."""
        if not isinstance(timestep, Tensor):
            return table[timestep].to(like.dtype)  # on the CPU, where a scalar meets every device without a copy
        values = table.to(like.dtype).to(timestep.device)[timestep].to(like.device)  # dtype first: MPS has no float64
        return values.view(-1, *(1,) * (like.ndim - 1)) if values.ndim else values
