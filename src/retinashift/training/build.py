"""From settings to the parts of a run: denoiser, scheduler, pipeline."""

from __future__ import annotations

import inspect

import torch
from diffusers.models.autoencoders.vq_model import VQModel

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import CheckpointError, Denoiser, ResShiftPipeline
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet
from retinashift.training.config import ChainSettings, ConfigError, ModelSettings, TrainConfig


def build_pipeline(config: TrainConfig) -> ResShiftPipeline:
    """A fresh pipeline by the settings, or the checkpoint that `init_from` names, with weights in float32.

    Fresh weights depend on `run.seed` alone. Raises ConfigError.
    """
    if config.init_from:
        try:
            if config.init_from == "shipped":
                pipeline = ResShiftPipeline.from_shipped()
            else:
                pipeline = ResShiftPipeline.from_pretrained(config.init_from)
            pipeline.denoiser.float()
        except CheckpointError as error:
            raise ConfigError(f"init_from: {error}") from None
        if pipeline.config.scale != config.chain.scale:
            raise ConfigError(
                f"init_from is a x{pipeline.config.scale} checkpoint; chain.scale is {config.chain.scale}"
            )
        return pipeline
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)  # module constructors draw from the global generator
        denoiser = build_denoiser(config.model, config.chain.scale)
    return ResShiftPipeline(
        denoiser=denoiser,
        scheduler=build_scheduler(config.chain),
        scale=config.chain.scale,
        upsampling=config.chain.upsampling,
    )


def build_denoiser(settings: ModelSettings, scale: int) -> Denoiser:
    """ConfigError for an option its class does not have."""
    state_channels = 3 * scale**2
    if settings.kind == "light":
        denoiser_class, defaults = LightNet, {"factor": scale}
    else:
        denoiser_class, defaults = SwinUNet, {"in_channels": state_channels, "out_channels": state_channels}
    allowed = set(inspect.signature(denoiser_class.__init__).parameters) - {"self", *defaults}
    for name in settings.options:
        if name not in allowed:
            raise ConfigError(f"unknown setting model.options.{name}; allowed are {', '.join(sorted(allowed))}")
    try:
        return denoiser_class(**defaults, **settings.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.options: {error}") from None


def build_scheduler(settings: ChainSettings) -> ResShiftScheduler:
    try:
        return ResShiftScheduler(
            num_train_timesteps=settings.steps,
            kappa=settings.kappa,
            power=settings.power,
            min_noise=settings.min_noise,
            end=settings.end,
            prediction_type=settings.prediction,
            input_scaling=settings.input_scaling,
        )
    except ValueError as error:
        raise ConfigError(f"chain: {error}") from None


def codec_of(pipeline: ResShiftPipeline) -> VQModel | None:
    """The learned codec, frozen, or None for the pixel codec."""
    if pipeline.codec is not None:
        pipeline.codec.requires_grad_(False).eval()
    return pipeline.codec
