"""Distilling the chain: a student gives in one network call what its teacher draws in several.

From one x_T the deterministic chain of the teacher leads to one sample, with its detail made stronger as the mode
"realistic" does. The student is to give that sample, and over its noise to be right on average: two estimates from
opposite noise are to have the truth in their middle. Of one call, at x_T = y0, it learns the posterior mean instead.

Source: the deterministic teacher is that of Wang et al., "SinSR" (CVPR 2024), eqs. 6 and 8; the truth comes in by
opposite noise here, where SinSR inverts the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retinashift.diffusion.sampling import boost_detail, sample
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.checkpoints import open_checkpoint
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import Denoiser, ResShiftPipeline
from retinashift.inference.settings import Mode, Sampling
from retinashift.training.settings import ConfigError, DistillSettings

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_T as the scheduler scales it, timesteps (B,), lq) -> prediction, shaped as x_T."""


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser and its deterministic chain."""

    denoiser: Denoiser
    scheduler: ResShiftScheduler
    gain: float
    """What the detail of its samples is multiplied by; see `boost_detail`."""
    back_projections: int
    """How often results of the mode that is distilled are brought into line with the input."""

    @property
    def gives_mean(self) -> bool:
        """Whether the student is to give the posterior mean, which one call is, and no sample."""
        return len(self.scheduler.timesteps) == 1

    @torch.no_grad()
    def sample(self, noise: Tensor, y0: Tensor, lq: Tensor) -> Tensor:
        """x0 that its chain reaches from the x_T of this noise, (B, C, h, w) in the space of the chain."""

        def predict(x: Tensor, t: int) -> Tensor:
            return self.denoiser(x, t, lq=lq).sample.float()

        steps = list(sample(self.scheduler, predict, y0, lambda number: noise))
        return boost_detail(steps[-1][0], steps[0][1], self.gain)


def open_teacher(settings: DistillSettings, student: ResShiftPipeline, device: torch.device) -> Teacher:
    """The teacher that the settings name, on the device.

    Raises:
        ConfigError: there is no such checkpoint, or its chain is not the student's.
    """
    try:
        pipeline = open_checkpoint(settings.teacher)
    except CheckpointError as error:
        raise ConfigError(f"distill.teacher: {error}") from None
    if not torch.equal(pipeline.scheduler.eta, student.scheduler.eta) or any(
        getattr(pipeline.scheduler.config, name) != getattr(student.scheduler.config, name)
        for name in ("kappa", "prediction_type", "input_scaling")
    ):
        raise ConfigError("distill.teacher has another chain than the student; set init_from to the teacher as well")
    if not pipeline.image_codec.lossless:
        raise ConfigError("distill.teacher has a learned codec; only chains in pixel space are distilled")
    scheduler = ResShiftScheduler.from_config(pipeline.scheduler.config, transition="deterministic")
    try:
        scheduler.set_timesteps(settings.steps or len(scheduler))
    except ValueError as error:
        raise ConfigError(f"distill.steps: {error}") from None
    mode: Mode = "faithful" if len(scheduler.timesteps) == 1 else "realistic"
    denoiser = pipeline.denoiser.float().to(device).eval().requires_grad_(False)
    return Teacher(denoiser, scheduler, settings.gain, pipeline.plan(Sampling(mode=mode)).back_projections)


def distillation_error(
    teacher: Teacher,
    student: Network,
    x0: Tensor,
    y0: Tensor,
    lq: Tensor,
    noise: Tensor,
    truth: float,
) -> Tensor:
    """Squared error of the student against the teacher, and `truth` times that of its mean against x0; (B,) float32.

    Args:
        x0, y0, noise: (B, C, h, w). lq: (B, 3, h, w). truth: 0 leaves the truth out, and saves a pass.
    """
    scheduler = teacher.scheduler
    last = torch.full((len(x0),), len(scheduler) - 1, device=x0.device)

    def estimate(x_T: Tensor) -> Tensor:
        prediction = student(scheduler.scale_model_input(x_T, last), last, lq)
        return scheduler.predict_x0(prediction.float(), last, x_T, y0)  # (B, C, h, w)

    if teacher.gives_mean:  # the chain starts at its own mean, as in use
        noise = torch.zeros_like(noise)
    x_T = scheduler.init_noise(y0, noise=noise)
    drawn = estimate(x_T)
    error = _squared(drawn - teacher.sample(noise, y0, lq))
    if truth:
        opposite = estimate(scheduler.init_noise(y0, noise=-noise))
        error = error + truth * _squared((drawn + opposite) / 2 - x0)
    return error


def _squared(difference: Tensor) -> Tensor:
    return difference.float().square().mean(dim=(1, 2, 3))
