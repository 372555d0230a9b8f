"""Settings of a training run: frozen dataclasses, strict YAML in and out.

Unknown keys, wrong types, numbers out of range and contradictions are refused at construction with one line that names
the key.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from retinashift.data.photographs import Source
from retinashift.imaging.degradation.bicubic import Bicubic
from retinashift.imaging.degradation.pipeline import Degradation, read_section
from retinashift.training.ranges import (
    ConfigError,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Ranged,
    Share,
    ShareBelowOne,
    Within,
)

__all__ = [
    "HR_ONLY", "SMALLEST_WINDOW", "ChainSettings", "ConfigError", "CropSettings", "DistillSettings", "LoraSettings",
    "LossSettings", "ModelSettings", "OptimSettings", "RunSettings", "Source", "TrainConfig",
]  # fmt: skip


HR_ONLY = (
    "rescale_min", "rescale_max", "blur_sigma_max", "sharpen_max", "tint_max", "expose_max", "aperture_share",
)  # fmt: skip
"""Settings of a crop that change the HR image before its LR image is made."""
SMALLEST_WINDOW = 8
"""Pixels of a photograph, a side, that a crop takes at least."""


@dataclass(frozen=True)
class CropSettings(Ranged, section="crop"):
    """How a training sample is cut from a photograph."""

    size: Annotated[int, Within(SMALLEST_WINDOW)] = 192
    """Side of the HR crop in pixels, a multiple of the scale."""
    rescale_min: Positive = 1.0
    rescale_max: Positive = 1.0
    """HR is rescaled by a factor drawn log-uniformly from this range before it is cropped (HR layouts only)."""
    blur_sigma_max: NotNegative = 0.0
    """Half of the crops are blurred by a Gaussian of sigma drawn from 0 to this, in HR pixels (HR layouts only)."""
    tint_max: Share = 0.0
    """Half of the crops have each colour raised to a power drawn from 1/(1 + this) to 1 + this, and darkened by up to
    this share: films and cameras that the photographs do not show (HR layouts only)."""
    sharpen_max: NotNegative = 0.0
    """Half of the crops that are not blurred are sharpened instead, as cameras do it: this many times, at most, the
    difference from a Gaussian blur of 1 HR pixel is added (HR layouts only)."""
    expose_max: NotNegative = 0.0
    """Half of the crops have each colour multiplied by a factor drawn from 1/(1 + this) to 1 + this, and cut off at
    white: over- and under-exposed photographs (HR layouts only)."""
    aperture_share: Share = 0.0
    """This share of the crops is cut by the edge of a disc, sharp or soft, with a dark surround: the apertures of other
    cameras (HR layouts only)."""
    flip: bool = True
    """The eight flips and quarter turns."""
    min_visible: Share = 0.25
    """A crop with less than this share of non-black pixels is drawn again (at most 4 times)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rescale_min > self.rescale_max:
            raise ConfigError(
                f"crop.rescale_min..max is {self.rescale_min}..{self.rescale_max}; 0 < min <= max is allowed"
            )
        if round(self.size / self.rescale_max) < SMALLEST_WINDOW:
            raise ConfigError(
                f"crop.size is {self.size} and crop.rescale_max {self.rescale_max}; their quotient, what is cut from a "
                f"photograph, must be at least {SMALLEST_WINDOW} pixels"
            )


@dataclass(frozen=True)
class ChainSettings(Ranged, section="chain"):
    """The residual-shifting chain; see `ResShiftScheduler`."""

    scale: Count = 4
    steps: Annotated[int, Within(2)] = 4
    kappa: Positive = 0.06
    power: Positive = 0.3
    min_noise: Positive = 0.2
    end: Annotated[float, Within(0, 1, above=True, below=True)] = 0.99
    prediction: Literal["x0", "residual", "noise", "scaled_noise"] = "residual"
    input_scaling: Literal["none", "latent", "pixel"] = "none"
    upsampling: Literal["pillow", "torch"] = "pillow"


@dataclass(frozen=True)
class ModelSettings:
    """The denoiser. `options` are the arguments of its class: `LightNet` or `SwinUNet`."""

    kind: Literal["light", "swin"] = "light"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossSettings(Ranged, section="loss"):
    """What is minimised: mse * squared error + log * its logarithm + lpips * LPIPS.

    The papers, for mse and lpips: 1 and 1; faces and filling in: 1 and 10; deblurring: 1 and 4 by AlexNet.
    """

    mse: NotNegative = 256.0
    """Of values in [-1, 1]; 256 counts errors in units of 1/16, about the size of residuals, and so starts near 1."""
    log: NotNegative = 0.0
    """Of each sample's squared error, as PSNR is: soft crops, whose errors are small, count as much as sharp ones."""
    lpips: NotNegative = 0.0
    """Between decoded estimate and photograph; needs the extra `lpips` and weights that are downloaded."""
    lpips_net: Literal["vgg", "alex"] = "vgg"
    """VGG16 or AlexNet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.mse or self.log or self.lpips):
            raise ConfigError("loss.mse, loss.log and loss.lpips are 0, and nothing is minimised; not all 0 is allowed")


@dataclass(frozen=True)
class LoraSettings(Ranged, section="lora"):
    """Adapters beside frozen weights; needs the extra `lora`."""

    rank: CountOrNone = 0
    """0 trains all weights."""
    alpha: NotNegative = 0.0
    """Adapters count alpha / rank times; 0 is the rank itself."""


@dataclass(frozen=True)
class DistillSettings(Ranged, section="distill"):
    """A student in one step of the chain of a teacher; `init_from` is best the teacher, too."""

    teacher: str = ""
    """A checkpoint folder, or a name that comes along; "" trains on the photographs alone."""
    steps: CountOrNone = 0
    """Network calls of the teacher; 0 is all."""
    gain: Positive = 1.0
    """What the detail of its samples is multiplied by."""
    truth: NotNegative = 1.0
    """Weight of the error of the mean of two estimates from opposite noise, against the photograph; 0 leaves it out."""


@dataclass(frozen=True)
class OptimSettings(Ranged, section="optim"):
    """AdamW, its learning rate and the average of the weights."""

    batch_size: Count = 8
    """Samples of one forward pass of one process."""
    accumulate: Count = 1
    """Forward passes of one process in a step: a step sees batch_size * accumulate * processes samples."""
    lr: NotNegative = 1e-3
    lr_end: NotNegative = 1e-6
    warmup_steps: CountOrNone = 100
    schedule: Literal["cosine", "published"] = "cosine"
    """cosine: over the whole run, times a linear warm-up. published: that of the official training, see
    `published_rate`; it counts steps, so run.minutes must be 0."""
    beta2: ShareBelowOne = 0.99
    """Memory of the squared gradients; the papers have 0.999."""
    weight_decay: NotNegative = 0.0
    clip: NotNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: ShareBelowOne = 0.999
    """Decay of the averaged weights, which are the ones that are validated and shipped."""
    start_share: ShareBelowOne = 0.0
    """This share of what the run started from is in the weights that are validated and shipped; the rest is the
    average. Between the two, what was learned is kept and little of what was known is lost (Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022)."""
    ema_warmup: bool = True
    """The decay rises from 0.1, so that the start is soon forgotten; the papers have it constant."""
    weighting: Literal["plain", "bound"] = "plain"
    """plain: the mean squared error. bound: weighted as in the evidence bound, to mean weight 1."""
    last_step_share: Share = 0.0
    """Share of the samples at the last step of the chain, from which one-step use starts; the others are uniform."""


@dataclass(frozen=True)
class RunSettings(Ranged, section="run"):
    """Length, precision and records of a run."""

    out: str = "runs/default"
    steps: Count = 10000
    minutes: NotNegative = 0.0
    """If positive, the schedule also ends by the clock, whichever comes first (then a resumed run is not bit-exact)."""
    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    log_every: Count = 20
    validate_every: Count = 500
    save_every: Count = 500
    keep: Count = 2
    """Complete states kept; the best by validation is kept besides."""
    sample_pool: CountOrNone = 0
    """If positive, the run takes this many samples again and again, and a learned codec encodes each of them once."""
    workers: CountOrNone = 0
    """Threads that prepare as many steps ahead; and processes, if positive, that run realistic cameras."""
    cache_gib: NotNegative = 4.0
    """Decoded photographs kept in memory (the GPU's where there is one); beyond it they are read when needed."""
    channels_last: bool = True
    compile: Literal["no", "blocks", "whole", "graphs"] = "no"
    """blocks: what repeats, once for all, where the denoiser's class says what that is. whole: all of it. graphs: the
    whole, recorded as CUDA graphs, for a GPU that would wait for Python; not with `distill`, which calls it twice."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run."""

    data: Source
    validation: Source | None = None
    crop: CropSettings = field(default_factory=CropSettings)
    degradation: Degradation = field(default_factory=Bicubic)
    chain: ChainSettings = field(default_factory=ChainSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)
    init_from: str = ""
    """A checkpoint folder to start from, "shipped", or another name that comes along; its denoiser, schedule
    and codec replace `model` and `chain`, but for a greater model.options.depth, which adds blocks to a LightNet."""
    tune: Literal["denoiser", "decoder"] = "denoiser"
    """decoder: of the learned codec that `init_from` brings; the denoiser stays as it is."""

    def __post_init__(self) -> None:
        if self.optim.schedule == "published" and self.run.minutes:
            raise ConfigError("optim.schedule published counts steps; set run.minutes to 0")
        if self.tune == "decoder" and (self.lora.rank or not self.init_from):
            raise ConfigError("tune: decoder needs a checkpoint with a learned codec in init_from, and lora.rank 0")
        if self.distill.teacher and (self.tune == "decoder" or self.loss.lpips):
            raise ConfigError("distill.teacher goes with tune: denoiser and loss.lpips 0")
        if self.distill.teacher and self.run.compile == "graphs":
            raise ConfigError("run.compile is graphs, which distill.teacher does not go with; blocks is allowed")
        if self.crop.size % self.chain.scale:
            raise ConfigError(f"crop.size is {self.crop.size}; it must be a multiple of chain.scale {self.chain.scale}")
        if self.data.layout == "pairs" and not self.degradation.exact:
            raise ConfigError("degradation.kind makes the LR image, which given LR/HR pairs bring; set bicubic-pillow")
        plain = CropSettings()
        altered = [name for name in HR_ONLY if getattr(self.crop, name) != getattr(plain, name)]
        if self.data.layout == "pairs" and altered:
            raise ConfigError(
                f"{', '.join(f'crop.{name}' for name in altered)}: HR would change and the given LR would not; "
                "leave them out for pairs"
            )

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> TrainConfig:
        """Read a YAML file; `overrides` are "a.b=value", the value read as YAML. Raises ConfigError."""
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"no settings file at {path}")
        mapping = _read_yaml(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(mapping, dict):
            raise ConfigError(f"{path} holds no settings (a mapping such as data: ... is expected)")
        for item in overrides or []:
            key, equals, value = item.partition("=")
            if not equals:
                raise ConfigError(f"--set {item}: the form is key.key=value")
            _assign(mapping, key.split("."), _read_yaml(value, f"--set {key}"))
        return _build(cls, mapping, "")

    def to_yaml(self) -> str:
        """The resolved settings; `load` reads them back to an equal object."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases, which can grow a small file without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise ConfigError("the settings use a YAML alias (*name); write the value out")
        return super().compose_node(parent, index)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not plain YAML: {' '.join(str(error).split())}") from None


def _assign(mapping: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = mapping.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = mapping[key] = {}
        mapping = inner
    mapping[keys[-1]] = value


def _build(cls: Any, value: Any, where: str) -> Any:
    """`value` from YAML as the type `cls`, or a ConfigError that names `where`."""
    origin = typing.get_origin(cls)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _build(next(a for a in typing.get_args(cls) if a is not type(None)), value, where)
    if origin is Literal:
        allowed = typing.get_args(cls)
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value  # YAML's bare no
        if value not in allowed:
            raise ConfigError(f"{where} is {value!r}; allowed are {', '.join(map(str, allowed))}")
        return value
    if origin is tuple:
        kinds = typing.get_args(cls)
        if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
            raise ConfigError(f"{where} is {value!r}; {len(kinds)} values are expected, such as [0.5, 2.0]")
        return tuple(_build(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if cls is Degradation and isinstance(value, dict):
        try:
            cls, value = read_section(value)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if dataclasses.is_dataclass(cls) and isinstance(cls, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where or 'the file'} must be a mapping, not {value!r}")
        hints = typing.get_type_hints(cls)
        for key in value:
            if key not in hints:
                raise ConfigError(f"unknown setting {_join(where, key)}; allowed are {', '.join(hints)}")
        required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
        for key in required:
            if key not in value:
                raise ConfigError(f"setting {_join(where, key)} is missing")
        settings = {key: _build(hints[key], item, _join(where, key)) for key, item in value.items()}
        try:
            return cls(**settings)
        except ConfigError:
            raise
        except ValueError as error:  # of settings that live beside what they set
            text = str(error)
            raise ConfigError(text if text.startswith(f"{where}.") else f"{where}: {text}") from None
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a mapping, not {value!r}")
        return value
    if cls is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{where} is {value!r}; a number is expected") from None
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
        raise ConfigError(f"{where} is {value!r}; {cls.__name__} is expected")
    if cls is float and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; a finite number is expected")
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
