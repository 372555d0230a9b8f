"""What a step minimises: the errors of the papers, or of a student against its teacher.

A student gives in one network call what its teacher draws in several. From one x_T the deterministic chain of the
teacher leads to one sample, with its detail made stronger as the mode "realistic" does. The student is to give that
sample, and over its noise to be right on average: two estimates from opposite noise are to have the truth in their
middle. Of one call, at x_T = y0, it learns the posterior mean instead.

Source: the deterministic teacher is that of Wang et al., "SinSR" (CVPR 2024), eqs. 6 and 8; the truth comes in by
opposite noise here, where SinSR inverts the chain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from retinashift.diffusion.sampling import boost_detail, sample, stream_generator
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import Denoiser, ResShiftPipeline, open_checkpoint
from retinashift.inference.settings import Mode, Sampling
from retinashift.models.codec import upsample_bicubic
from retinashift.models.perceptual import LPIPS
from retinashift.training.batches import Batch
from retinashift.training.settings import ConfigError, DistillSettings, TrainConfig

NOISE_STREAM = 1  # of the streams of one seed, 0 cuts the samples and this one draws their steps and noise
ROUNDING = 1e-5  # about the squared error, on [-1, 1], of rounding to 8 bit: below it a sample counts no more
Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t as the scheduler scales it, timesteps (B,), lq) -> prediction, shaped as x_t."""


class Objective:
    """The loss of a micro-batch, as the settings weigh its terms.

    A learned codec of the pipeline is frozen and moved to the device of the run.
    """

    def __init__(self, config: TrainConfig, pipeline: ResShiftPipeline, accelerator: Accelerator):
        self.config, self.pipeline, self.accelerator = config, pipeline, accelerator
        self.device = device = accelerator.device
        self.scheduler: ResShiftScheduler = pipeline.scheduler
        self.codec = pipeline.image_codec
        if pipeline.codec is not None:
            pipeline.codec.requires_grad_(False).eval().to(device)
        self.teacher = open_teacher(config.distill, pipeline, device) if config.distill.teacher else None
        self.lpips = LPIPS.pretrained(config.loss.lpips_net).to(device) if config.loss.lpips else None
        bound = config.optim.weighting == "bound"
        weight = self.scheduler.loss_weight() if bound else torch.ones(len(self.scheduler))
        self.step_weight = weight.float().to(device)  # (T,)

    def __call__(self, model: nn.Module, batch: Batch, number: int) -> Tensor:
        """The mean loss of a micro-batch, a scalar; `model` is what is trained, as accelerate prepared it.

        `number`, its place among all micro-batches of the run, alone decides its steps and noise.
        """

        def predict(sample: Tensor, timesteps: Tensor, lq: Tensor) -> Tensor:
            return model(sample, timesteps, lq=lq).sample

        loss = self.config.loss
        lq, hr = ((image * 2 - 1).to(self.device) for image in (batch.lr, batch.hr))  # (B, 3, h, w), (B, 3, H, W)
        with torch.no_grad():
            upscaled = upsample_bicubic(lq, self.config.chain.scale, self.pipeline.config.upsampling)
            x0, y0 = self.codec.encode(hr), self.codec.encode(upscaled)  # (B, C, h', w')
        timesteps, noise = self._draw(number, x0)  # (B,), as x0
        if self.teacher is not None:
            with self.accelerator.autocast():  # the teacher is no network that accelerate prepared
                errors = distillation_error(self.teacher, predict, x0, y0, lq, noise, self.config.distill.truth)  # (B,)
            return combined(errors, None, loss.mse, 0, loss.log).mean()
        x_t = self.scheduler.add_noise(x0, noise, timesteps, y0)
        prediction = predict(self.scheduler.scale_model_input(x_t, timesteps), timesteps, lq)
        errors = squared_error(self.scheduler, prediction, x0, y0, noise, timesteps)  # (B,)
        perceptual = None
        if self.lpips:
            estimate = self.scheduler.predict_x0(prediction, timesteps, x_t, y0)  # (B, C, h', w')
            perceptual = perceptual_error(self.lpips, self.codec.decode(estimate), hr)  # (B,)
        return combined(self.step_weight[timesteps] * errors, perceptual, loss.mse, loss.lpips, loss.log).mean()

    def _draw(self, number: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of the chain (B,) and noise (as `like`) of a micro-batch."""
        generator = stream_generator(self.config.run.seed + (NOISE_STREAM << 32), number, self.device)
        draw: dict[str, Any] = {"generator": generator, "device": self.device}
        timesteps = torch.randint(len(self.scheduler), (like.shape[0],), **draw)
        at_end = torch.rand(like.shape[0], **draw) < self.config.optim.last_step_share
        return torch.where(at_end, len(self.scheduler) - 1, timesteps), torch.randn(like.shape, **draw)


def squared_error(
    scheduler: ResShiftScheduler, prediction: Tensor, x0: Tensor, y0: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Mean squared error of the prediction, (B, C, H, W) as x0, y0 and noise, for each sample, (B,), in float32.

    The error of the scaled noise is divided by its variance, kappa^2 eta_t, so that it becomes the error of the noise.
    """
    target = scheduler.target(x0, y0, noise, timesteps)
    error = _mean_square(prediction.float() - target.float())
    if scheduler.config.prediction_type == "scaled_noise":
        error = error / (scheduler.config.kappa**2 * scheduler.eta.float().to(error.device)[timesteps])
    return error


def perceptual_error(lpips: LPIPS, image: Tensor, hr: Tensor) -> Tensor:
    """LPIPS (B,) of a decoded estimate, (B, 3, H, W) in about [-1, 1], against the photograph in [-1, 1]."""
    return lpips(image.float().clamp(-1, 1), hr.float())


def combined(errors: Tensor, perceptual: Tensor | None, mse: float, lpips: float, log: float = 0.0) -> Tensor:
    """mse * errors + log * log(errors) + lpips * perceptual, all (B,); the last one only if all of it is finite."""
    loss = mse * errors
    if log:
        loss = loss + log * torch.log(errors + ROUNDING)
    if perceptual is not None:
        loss = loss + lpips * torch.where(torch.isfinite(perceptual).all(), perceptual, 0.0)
    return loss


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser and its deterministic chain."""

    denoiser: Denoiser
    scheduler: ResShiftScheduler
    gain: float  # of the detail of its samples; see `boost_detail`
    back_projections: int  # of the mode that is distilled

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
    """The teacher that the settings name, on the device. ConfigError: no such checkpoint, or another chain."""
    try:
        pipeline = open_checkpoint(settings.teacher)
    except CheckpointError as error:
        raise ConfigError(f"distill.teacher: {error}") from None
    names = ("kappa", "prediction_type", "input_scaling")
    own, other = ({name: chain.config[name] for name in names} for chain in (pipeline.scheduler, student.scheduler))
    if own != other or not torch.equal(pipeline.scheduler.eta, student.scheduler.eta):
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
    teacher: Teacher, student: Network, x0: Tensor, y0: Tensor, lq: Tensor, noise: Tensor, truth: float
) -> Tensor:
    """Squared error of the student against the teacher, and `truth` times that of its mean against x0; (B,) float32.

    x0, y0 and noise are (B, C, h, w), lq is (B, 3, h, w); truth 0 saves a pass.
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
    error = _mean_square(drawn - teacher.sample(noise, y0, lq))
    if truth:
        opposite = estimate(scheduler.init_noise(y0, noise=-noise))
        error = error + truth * _mean_square((drawn + opposite) / 2 - x0)
    return error


def _mean_square(difference: Tensor) -> Tensor:
    return difference.float().square().mean(dim=(1, 2, 3))
