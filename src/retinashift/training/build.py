"""Build the parts of a run from its settings: denoiser, scheduler, pipeline, and what of it is trained."""

import inspect

import numpy as np
import torch
from torch import nn

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import Denoiser, ResShiftPipeline, open_checkpoint
from retinashift.models.adapters import add_lora
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet
from retinashift.training.settings import ChainSettings, ConfigError, ModelSettings, TrainConfig, flattened

# Arguments of the denoisers that follow from the scale and are not settings.
_COMPUTED = {"light": ("factor",), "swin": ("in_channels", "out_channels")}

LARGEST_OPTION = 4096
"""Of the denoiser's widths, depths and sizes."""
MOST_PARAMETERS = 2_000_000_000


def build_pipeline(config: TrainConfig) -> ResShiftPipeline:
    """A fresh pipeline by the settings, or the checkpoint that `init_from` names, with weights in float32.

    Fresh weights depend on `run.seed` alone. Results of poor inputs need not reproduce them.
    Raises ConfigError.
    """
    exact = config.degradation.exact
    if config.init_from:
        try:
            pipeline = open_checkpoint(config.init_from)
            pipeline.denoiser.float()
            # neither the uncertainty head nor the use as a one-step student holds for new weights
            pipeline.register_to_config(distilled=False)
            pipeline.drop_uncertainty()
            _deepen(pipeline.denoiser, config)
            if not exact:
                pipeline.register_to_config(back_projections=0, check_measure="burst", check_threshold=24.0)
        except CheckpointError as error:
            raise ConfigError(f"init_from: {error}") from None
        return pipeline
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)  # module constructors draw from the global generator
        denoiser = build_denoiser(config.model, config.chain.scale)
    return ResShiftPipeline(
        denoiser=denoiser,
        scheduler=build_scheduler(config.chain),
        scale=config.chain.scale,
        upsampling=config.chain.upsampling,
        back_projections=6 if exact else 0,
        check_measure="value" if exact else "burst",
        check_threshold=8.0 if exact else 24.0,
    )


def _deepen(denoiser: Denoiser, config: TrainConfig) -> None:
    """Give a LightNet the further blocks that `model.options.depth` asks for; they depend on `run.seed` alone."""
    depth = config.model.options.get("depth")
    if denoiser.kind == "light" and isinstance(depth, int) and depth > denoiser.config.depth:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            denoiser.deepen(depth)


def resolved(config: TrainConfig, pipeline: ResShiftPipeline) -> TrainConfig:
    """The settings with `chain` and `model` of the checkpoint in `init_from`; unchanged without it.

    Raises:
        ConfigError: a setting of `chain` or `model` was given that contradicts the checkpoint.
    """
    if not config.init_from:
        return config
    denoiser = pipeline.denoiser
    brought_by = {**pipeline.scheduler.config, "scale": pipeline.config.scale, "upsampling": pipeline.config.upsampling}
    chain = ChainSettings(**{name: brought_by[name] for name in ChainSettings.model_fields})
    computed = _COMPUTED[denoiser.kind]
    options = {n: v for n, v in denoiser.config.items() if not n.startswith("_") and n not in computed}
    model = ModelSettings(kind=denoiser.kind, options=options)
    plain, found = TrainConfig(data=config.data), config.model_copy(update={"chain": chain, "model": model})
    given, default, brought = (flattened(c.model_dump(include={"chain", "model"})) for c in (config, plain, found))
    for name, value in given.items():
        if name != "model.options" and value != default.get(name) and value != brought.get(name):
            way = "leave it out" if name.startswith("chain") else "leave model out, or add --set 'model={}'"
            has = brought.get(name, "no such option")
            raise ConfigError(f"{name} is {value}, but the checkpoint of init_from has {has}; {way}")
    return config.replace(chain=chain, model=model)


def build_denoiser(settings: ModelSettings, scale: int) -> Denoiser:
    """A fresh denoiser. ConfigError for an unknown option, or one out of range."""
    denoiser_class = LightNet if settings.kind == "light" else SwinUNet
    values = (scale,) if settings.kind == "light" else (3 * scale**2, 3 * scale**2)
    defaults = dict(zip(_COMPUTED[settings.kind], values, strict=True))
    allowed = set(inspect.signature(denoiser_class.__init__).parameters) - {"self", *defaults}
    for name in settings.options:
        if name not in allowed:
            raise ConfigError(f"unknown setting model.options.{name}; allowed are {', '.join(sorted(allowed))}")
    for name in ("width", "depth", "time_width"):
        value = settings.options.get(name, 1)
        if type(value) is not int or value < 1:
            raise ConfigError(f"model.options.{name} is {value}; a whole number, at least 1, is needed")
    for name, value in settings.options.items():
        if any(isinstance(number, int) and number > LARGEST_OPTION for number in np.ravel(np.array(value, object))):
            raise ConfigError(f"model.options.{name} is {value}; at most {LARGEST_OPTION} is allowed")
    try:
        with torch.device("meta"):  # counts the parameters without memory for them
            parameters = sum(value.numel() for value in denoiser_class(**defaults, **settings.options).parameters())
        if parameters > MOST_PARAMETERS:
            raise ConfigError(f"model.options give {parameters:,} parameters; at most {MOST_PARAMETERS:,} are allowed")
        return denoiser_class(**defaults, **settings.options)
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"model.options: {error}") from None


def build_scheduler(settings: ChainSettings) -> ResShiftScheduler:
    try:
        return ResShiftScheduler(**settings.model_dump(exclude={"scale", "upsampling"}))
    except ValueError as error:
        raise ConfigError(f"chain: {error}") from None


def trained_part(pipeline: ResShiftPipeline, config: TrainConfig) -> nn.Module:
    """What is trained: the denoiser, perhaps with adapters. Raises ConfigError."""
    if config.lora.rank:
        if not config.init_from:
            raise ConfigError("lora.rank is given, but there are no weights to adapt; name a checkpoint in init_from")
        try:
            add_lora(pipeline.denoiser, config.lora.rank, config.lora.alpha or config.lora.rank, config.run.seed)
        except ValueError as error:
            raise ConfigError(f"lora: {error}") from None
    return pipeline.denoiser
