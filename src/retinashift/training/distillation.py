"""Distilling the chain: a student gives in one network call what its teacher draws in several.

From one x_T the deterministic chain of the teacher leads to one sample, with its detail made stronger as the mode
"realistic" does. The student is to give that sample, and over its noise to be right on average: two estimates from
opposite noise are to have the truth in their middle.

Source: the deterministic teacher is that of Wang et al., "SinSR" (CVPR 2024), eqs. 6 and 8; the truth comes in by
opposite noise here, where SinSR inverts the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.checkpoints import open_checkpoint
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import Denoiser, ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.inference.streaming import amplified
from retinashift.training.settings import ConfigError, DistillSettings

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_T as the scheduler scales it, timesteps (B,), lq) -> prediction, shaped as x_T."""


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser and its deterministic chain."""

    denoiser: Denoiser
    scheduler: ResShiftScheduler
    gain: float
    """What the detail of its samples is multiplied by; see `amplified`."""
    back_projections: int
    """How often results of its realistic mode are brought into line with the input."""

    @torch.no_grad()
    def sample(self, x_T: Tensor, y0: Tensor, lq: Tensor) -> Tensor:
        """x0 that its chain reaches from x_T, (B, C, h, w) in the space of the chain."""
        x_t = mean = x_T
        for number, t in enumerate(self.scheduler.timesteps.tolist()):
            prediction = self.denoiser(self.scheduler.scale_model_input(x_t, t), t, lq=lq).sample
            x_t, x0 = self.scheduler.step(prediction.float(), t, x_t, y0, return_dict=False)
            mean = x0 if number == 0 else mean
        return amplified(x_t, mean, self.gain)


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
    if pipeline.codec is not None:
        raise ConfigError("distill.teacher has a learned codec; only chains in pixel space are distilled")
    scheduler = ResShiftScheduler.from_config(pipeline.scheduler.config, transition="deterministic")
    try:
        scheduler.set_timesteps(settings.steps or len(scheduler))
    except ValueError as error:
        raise ConfigError(f"distill.steps: {error}") from None
    denoiser = pipeline.denoiser.float().to(device).eval().requires_grad_(False)
    return Teacher(denoiser, scheduler, settings.gain, pipeline.plan(Sampling(mode="realistic")).back_projections)


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

    x_T = scheduler.init_noise(y0, noise=noise)
    sample = estimate(x_T)
    error = _squared(sample - teacher.sample(x_T, y0, lq))
    if truth:
        opposite = estimate(scheduler.init_noise(y0, noise=-noise))
        error = error + truth * _squared((sample + opposite) / 2 - x0)
    return error


def _squared(difference: Tensor) -> Tensor:
    return difference.float().square().mean(dim=(1, 2, 3))
