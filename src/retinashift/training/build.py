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

LARGEST_OPTION = 4096  # of the denoiser's widths, depths and sizes
MOST_PARAMETERS = 2_000_000_000
CLEAN = {"back_projections": 6, "check_measure": "value", "check_threshold": 8.0}
POOR = {"back_projections": 0, "check_measure": "burst", "check_threshold": 24.0}
"""How results are held to their inputs: those of poor inputs need not reproduce them."""
_COMPUTED = {"light": ("factor",), "swin": ("in_channels", "out_channels")}  # by the scale; they are no settings


def build_pipeline(config: TrainConfig) -> ResShiftPipeline:
    """A fresh pipeline by the settings, or the checkpoint that `init_from` names, with weights in float32.

    Fresh weights, and further blocks of a LightNet (`model.options.depth`), depend on `run.seed` alone. Or ConfigError.
    """
    chain, exact = config.chain, config.degradation.exact
    if not config.init_from:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)  # module constructors draw from the global generator
            denoiser = build_denoiser(config.model, chain.scale)
        try:
            scheduler = ResShiftScheduler(**chain.model_dump(exclude={"scale", "upsampling"}))
        except ValueError as error:
            raise ConfigError(f"chain: {error}") from None
        pipeline = ResShiftPipeline(denoiser, scheduler, scale=chain.scale, upsampling=chain.upsampling)
        pipeline.register_to_config(**(CLEAN if exact else POOR))
        return pipeline
    try:
        pipeline = open_checkpoint(config.init_from)
    except CheckpointError as error:
        raise ConfigError(f"init_from: {error}") from None
    denoiser, depth = pipeline.denoiser.float(), config.model.options.get("depth")
    if denoiser.kind == "light" and isinstance(depth, int) and depth > denoiser.config.depth:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            denoiser.deepen(depth)
    # neither the uncertainty head nor the use as a one-step student holds for new weights
    pipeline.drop_uncertainty()
    pipeline.register_to_config(distilled=False, **({} if exact else POOR))
    return pipeline


def resolved(config: TrainConfig, pipeline: ResShiftPipeline) -> TrainConfig:
    """The settings with `chain` and `model` of the checkpoint in `init_from`; unchanged without it.

    ConfigError if a setting of `chain` or `model` was given that contradicts the checkpoint.
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
    for name, value in settings.options.items():
        if name not in allowed:
            raise ConfigError(f"unknown setting model.options.{name}; allowed are {', '.join(sorted(allowed))}")
        if name in ("width", "depth", "time_width") and (type(value) is not int or value < 1):
            raise ConfigError(f"model.options.{name} is {value}; a whole number, at least 1, is needed")
        if any(isinstance(number, int) and number > LARGEST_OPTION for number in np.ravel(np.array(value, object))):
            raise ConfigError(f"model.options.{name} is {value}; at most {LARGEST_OPTION} is allowed")
    options = defaults | settings.options
    try:
        with torch.device("meta"):  # counts the parameters without memory for them
            parameters = sum(value.numel() for value in denoiser_class(**options).parameters())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.options: {error}") from None
    if parameters > MOST_PARAMETERS:
        raise ConfigError(f"model.options give {parameters:,} parameters; at most {MOST_PARAMETERS:,} are allowed")
    return denoiser_class(**options)


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
