"""Settings of a training run: what they mean, their ranges, and which of them contradict one another."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from retinashift.data.photographs import Source as Source
from retinashift.imaging.degradation.bicubic import Bicubic
from retinashift.imaging.degradation.pipeline import DEGRADATIONS, Degradation, read_section
from retinashift.inference.settings import Precision
from retinashift.training.settings_file import ConfigError as ConfigError
from retinashift.training.settings_file import describe, read_tree, read_yaml

SMALLEST_WINDOW = 8  # pixels of a photograph, a side, that a crop takes at least

Steps = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=65536)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


def _known(values: Any, allowed: Iterable[str]) -> Any:
    """The settings of a section, none of which has another name."""
    for name in values if isinstance(values, dict) else ():
        if name not in allowed:
            raise ConfigError(f"unknown setting {name}; allowed are {', '.join(allowed)}")
    return values


def _typed(value: Any) -> Any:
    """A setting whose type is not declared: numbers, true, false and null are what they are in JSON."""
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


Photographs = Annotated[Source, BeforeValidator(lambda given: _known(given, [field.name for field in fields(Source)]))]


class Section(BaseModel):
    """A part of the settings: frozen, and strict about names."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        return _known(values, cls.model_fields)

    @field_validator("*", mode="wrap")
    @classmethod
    def _text(cls, value: Any, read: pydantic.ValidatorFunctionWrapHandler) -> Any:
        """Text for a setting that is no text: a list or a mapping as an override gives it, or null."""
        try:
            return read(value)
        except ValidationError:
            plain = read_yaml(value) if isinstance(value, str) else value
            if plain == value:
                raise
        return read(plain)


class CropSettings(Section):
    """How a training sample is cut from a photograph, and changed to look like one of another camera.

    Each change but the flips needs a layout without given low-resolution images, because these would not change.
    """

    size: Annotated[int, Field(ge=SMALLEST_WINDOW, le=4096)] = 192
    """Side of the high-resolution crop in pixels, a multiple of the scale."""
    rescale_min: Annotated[float, Field(gt=0, le=16)] = 1.0
    rescale_max: Annotated[float, Field(gt=0, le=16)] = 1.0
    """The photograph is rescaled by a factor drawn log-uniformly from this range before it is cropped."""
    blur_sigma_max: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Half of the crops are blurred by a Gaussian of sigma drawn from 0 to this, in pixels of the crop."""
    tint_max: Share = 0.0
    """Half of the crops have each colour raised to a power drawn from 1/(1 + this) to 1 + this, and darkened by up to
    this share: other films and cameras."""
    sharpen_max: NotNegative = 0.0
    """Half of the crops that are not blurred are sharpened, as cameras do it: up to this many times the difference from
    a Gaussian blur of 1 pixel is added."""
    expose_max: NotNegative = 0.0
    """Half of the crops have each colour multiplied by a factor drawn from 1/(1 + this) to 1 + this, and clipped at
    white: over- and under-exposed photographs."""
    aperture_share: Share = 0.0
    """This share of the crops is cut by the edge of a disc, sharp or soft, with a dark surround: other apertures."""
    marks_share: Share = 0.0
    """This share of the crops has lines, rings, boxes, rulers or text drawn on it, in any colour: annotations."""
    flip: bool = True
    """The eight flips and quarter turns."""
    min_visible: Share = 0.25
    """A crop with less than this share of non-black pixels is drawn again, at most 4 times."""

    @model_validator(mode="after")
    def _check(self) -> CropSettings:
        if self.rescale_min > self.rescale_max:
            raise ConfigError(
                f"crop.rescale_min..max is {self.rescale_min}..{self.rescale_max}; 0 < min <= max is allowed"
            )
        if round(self.size / self.rescale_max) < SMALLEST_WINDOW:
            raise ConfigError(
                f"crop.size is {self.size} and crop.rescale_max {self.rescale_max}; their quotient, what is cut from a "
                f"photograph, must be at least {SMALLEST_WINDOW} pixels"
            )
        return self


class ChainSettings(Section):
    """The residual-shifting chain; all but the first and the last are those of `ResShiftScheduler`."""

    scale: Annotated[int, Field(ge=1, le=64)] = 4
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 4
    kappa: Positive = 0.06
    power: Positive = 0.3
    min_noise: Positive = 0.2
    end: Annotated[float, Field(gt=0, lt=1)] = 0.99
    prediction_type: Literal["x0", "residual", "noise", "scaled_noise"] = "residual"
    input_scaling: Literal["none", "latent", "pixel"] = "none"
    upsampling: Literal["pillow", "torch"] = "pillow"
    """Whose bicubic enlarges the low-resolution image."""


class ModelSettings(Section):
    """The denoiser."""

    kind: Literal["light", "swin"] = "light"
    options: dict[str, Annotated[Any, BeforeValidator(_typed)]] = Field(default_factory=dict)
    """Arguments of its class, `LightNet` or `SwinUNet`."""


class LossSettings(Section):
    """What is minimised: mse * squared error + log * its logarithm + lpips * LPIPS.

    The papers have mse 1 and lpips 1.
    """

    mse: NotNegative = 256.0
    """Of values in [-1, 1]; 256 counts errors in units of 1/16, about the size of residuals, and so starts near 1."""
    log: NotNegative = 0.0
    """Of each sample's squared error, as PSNR is: soft crops, whose errors are small, count as much as sharp ones."""
    lpips: NotNegative = 0.0
    """Between decoded estimate and photograph; needs the extra `lpips` and weights that are downloaded."""
    lpips_net: Literal["vgg", "alex"] = "vgg"
    """VGG16 or AlexNet."""

    @model_validator(mode="after")
    def _check(self) -> LossSettings:
        if not (self.mse or self.log or self.lpips):
            raise ConfigError("loss.mse, loss.log and loss.lpips are 0, and nothing is minimised; not all 0 is allowed")
        return self


class LoraSettings(Section):
    """Adapters beside frozen weights; needs the extra `lora`."""

    rank: Annotated[int, Field(ge=0, le=4096)] = 0
    """0 trains all weights."""
    alpha: NotNegative = 0.0
    """Adapters count alpha / rank times; 0 is the rank itself."""


class DistillSettings(Section):
    """Distil the chain of a teacher into a one-step student, which `init_from` best starts from the teacher."""

    teacher: str = ""
    """A checkpoint folder or the name of a bundled checkpoint; "" trains on the photographs alone."""
    steps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Network calls of the teacher; 0 is all, and 1 distils the posterior mean, which a smaller network may learn."""
    gain: Positive = 1.0
    """The detail of the teacher's samples is multiplied by this."""
    truth: NotNegative = 1.0
    """Weight of the error of the mean of two estimates from opposite noise, against the photograph; 0 is none."""


class OptimSettings(Section):
    """AdamW, its learning rate and the average of the weights."""

    batch_size: Count = 8
    """Samples of one forward pass of one process."""
    accumulate: Count = 1
    """Forward passes of one process in a step: a step sees batch_size * accumulate * processes samples."""
    learning_rate: NotNegative = 1e-3
    learning_rate_end: NotNegative = 1e-6
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 100
    schedule: Literal["cosine", "published"] = "cosine"
    """cosine: over the whole run, times a linear warm-up. published: that of the official training, see
    `published_rate`; it counts steps, so run.minutes must be 0."""
    beta2: ShareBelowOne = 0.99
    """Memory of the squared gradients; the papers have 0.999."""
    weight_decay: NotNegative = 0.0
    clip: NotNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: ShareBelowOne = 0.999
    """Decay of the averaged weights, which are the ones that are validated and saved as the checkpoint."""
    ema_warmup: bool = True
    """The decay rises from 0.1, so that the start is soon forgotten; the papers have it constant."""
    weighting: Literal["plain", "bound"] = "plain"
    """plain: the mean squared error. bound: weighted as in the evidence bound, to mean weight 1."""
    last_step_share: Share = 0.0
    """Share of the samples at the last step of the chain, from which one-step use starts; the others are uniform."""

    def rate(self, step: int, progress: float, steps: int) -> float:
        """The learning rate of a step counted from 0, as `progress` goes from 0 to 1 or through this many steps."""
        if self.schedule == "published":
            return published_rate(step, self.learning_rate, self.learning_rate_end, steps, self.warmup_steps)
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return warm * (self.learning_rate_end + (self.learning_rate - self.learning_rate_end) * cosine)

    def ema_decay(self, step: int) -> float:
        """Of the averaged weights after a step counted from 0."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema


def published_rate(step: int, base: float, last: float, steps: int, warmup: int) -> float:
    """The learning rate of the official training at a step counted from 0.

    It is set after a step for the next one, so the first step runs at the full rate; then a linear warm-up, and a
    cosine from `base` to `last` over what remains.
    """
    if step == 0:
        return base
    if step <= warmup:
        return base * step / warmup
    return last + (base - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class RunSettings(Section):
    """Length, precision and records of a run."""

    out: str = "runs/default"
    steps: Steps = 10000
    minutes: NotNegative = 0.0
    """If positive, the schedule also ends by the clock, whichever comes first, and every minute of it is saved; a
    resumed run is then not bit-exact."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    precision: Precision = "auto"
    """"auto" is bf16 where the device has arithmetic for it, else fp32; the log says which."""
    log_every: Steps = 20
    validate_every: Steps = 500
    save_every: Steps = 500
    keep: Count = 2
    """Complete states kept; the best by validation is kept besides."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads that prepare as many steps ahead; and, if positive, processes that compute the camera degradation."""
    cache_gib: NotNegative = 4.0
    """Decoded photographs kept in memory (the GPU's where there is one); beyond it they are read when needed."""
    channels_last: bool = True
    compile: Literal["no", "blocks", "whole", "graphs"] = "no"
    """blocks: the repeated block, compiled once. whole: the whole network. graphs: the whole network, recorded as CUDA
    graphs, for a GPU that would wait for Python; it excludes `distill`, which calls the network twice."""


def _read_degradation(value: Any) -> Any:
    """The degradation that a section describes; an object stays as it is."""
    if isinstance(value, tuple(DEGRADATIONS.values())):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{value!r} is given; a mapping such as kind: camera is needed")
    kind, options = read_section(value)
    options = {name: read_yaml(given) if isinstance(given, str) else given for name, given in options.items()}
    section: type[Section] = pydantic.create_model("section", __base__=Section, degradation=(kind, ...))
    try:
        return section.model_validate({"degradation": options}).degradation  # type: ignore[attr-defined]
    except ValidationError as error:
        raise ConfigError(describe(error)) from None


class TrainConfig(Section):
    """Everything that decides a run."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    data: Photographs
    validation: Photographs | None = None
    crop: CropSettings = CropSettings()
    degradation: Annotated[Degradation, pydantic.PlainValidator(_read_degradation)] = Bicubic()
    chain: ChainSettings = ChainSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    lora: LoraSettings = LoraSettings()
    distill: DistillSettings = DistillSettings()
    optim: OptimSettings = OptimSettings()
    run: RunSettings = RunSettings()
    init_from: str = ""
    """A checkpoint folder or the name of a bundled checkpoint to start from ("shipped" is the default one). Its
    denoiser, schedule and codec replace `model` and `chain`; a greater model.options.depth adds blocks."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.optim.schedule == "published" and self.run.minutes:
            raise ConfigError("optim.schedule published counts steps; set run.minutes to 0")
        if self.distill.teacher and self.loss.lpips:
            raise ConfigError("distill.teacher goes with loss.lpips 0")
        if self.distill.teacher and self.run.compile == "graphs":
            raise ConfigError("run.compile is graphs, which distill.teacher does not go with; blocks is allowed")
        if self.crop.size % self.chain.scale:
            raise ConfigError(f"crop.size is {self.crop.size}; it must be a multiple of chain.scale {self.chain.scale}")
        if self.data.layout == "pairs" and not self.degradation.exact:
            raise ConfigError("degradation.kind makes the LR image, which given LR/HR pairs bring; set bicubic-pillow")
        # these three change both images of a pair, all others HR alone
        plain = CropSettings(size=self.crop.size, flip=self.crop.flip, min_visible=self.crop.min_visible)
        altered = [f"crop.{name}" for name, value in self.crop if value != getattr(plain, name)]
        if self.data.layout == "pairs" and altered:
            raise ConfigError(
                f"{', '.join(altered)}: HR would change and the given LR would not; leave them out for pairs"
            )
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> TrainConfig:
        """Read a YAML file; `overrides` are "section.name=value", text as typed. Raises ConfigError."""
        return cls.parse(read_tree(Path(path), overrides or []))

    @classmethod
    def parse(cls, settings: dict[str, Any]) -> TrainConfig:
        """From nested mappings, as YAML or JSON has them. Raises ConfigError."""
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(describe(error)) from None

    def replace(self, **changes: Any) -> TrainConfig:
        """With other sections, which are checked together."""
        return TrainConfig(**(dict(self) | changes))

    def to_yaml(self) -> str:
        """The resolved settings; `load` reads them back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flattened(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Every setting of a dumped `TrainConfig` by its full name, such as "optim.learning_rate"."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        full = before + name
        found |= flattened(value, f"{full}.") if isinstance(value, dict) and value else {full: value}
    return found
