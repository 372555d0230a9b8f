"""ResShiftPipeline: low-resolution photographs in, reconstructions out. Device, dtype and seed are decided here."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from retinashift.diffusion.process import TRANSITIONS
from retinashift.diffusion.sampling import noise_seeds
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.chain import Chain, Listener, StepEnd, StepWatch, at_step_end
from retinashift.inference.consistency import settle
from retinashift.inference.detail import check_curves, factor_at, finest_energy, inner_field, scale_detail
from retinashift.inference.fidelity import at_size, back_project_rows, reduce_map, value_limits
from retinashift.inference.gate import NETWORKS, CheckpointError, check_finite, check_folder, shortened
from retinashift.inference.memory import fast_precision, spare_memory
from retinashift.inference.pictures import Canvas, OutputType, Picture, SampleMean, as_list, prepare, turn, turn_back
from retinashift.inference.record import SRResult, record_of_pixels
from retinashift.inference.self_check import Measure, SelfCheck
from retinashift.inference.settings import Plan, Precision, Sampling
from retinashift.models.adapters import WEIGHTS, merge_adapter
from retinashift.models.codec import Codec, LearnedCodec, PixelCodec, Upsampling
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.uncertainty_head import Calibration, ScaleMap, UncertaintyHead

Denoiser = LightNet | SwinUNet
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BUNDLED, DEFAULT = Path(str(files("retinashift") / "weights")), "x4"
"""The folder of the checkpoints that come with the package, and the one that is used when none is named."""
HUB = "hf:"
"""Prefix of a name on the hub; a folder that is missing is never looked up there."""


def shipped_names() -> list[str]:
    """The bundled checkpoints, sorted."""
    return sorted(entry.name for entry in BUNDLED.iterdir() if entry.is_dir())


def open_checkpoint(name: str = "", **kwargs: Any) -> "ResShiftPipeline":
    """The pipeline of a checkpoint.

    Args:
        name: a folder, which goes before a bundled checkpoint of that name; a bundled checkpoint, "" or "shipped" for
            the default `x4`; or hf:owner/name, which is downloaded from the Hugging Face hub.
        kwargs: diffusers' (torch_dtype, revision, ...).

    Raises:
        CheckpointError: it cannot be found or used.
    """
    if name in ("", "shipped"):
        return ResShiftPipeline.from_shipped(**kwargs)
    if name.startswith(HUB) or Path(name).expanduser().exists():
        return ResShiftPipeline.from_pretrained(name.removeprefix(HUB), **kwargs)
    return ResShiftPipeline.from_shipped(name, **kwargs)


class ResShiftPipeline(DiffusionPipeline):
    """Super-resolution by residual shifting.

    Args:
        denoiser: `LightNet` or `SwinUNet`.
        scheduler: the chain.
        codec: `VQCodec` or diffusers' `VQModel`, or None for the lossless `PixelCodec` of the same factor as `scale`.
        scale: how many times larger a result is.
        upsampling: convention of the bicubic interpolation that makes y0; the one of training.
        default_steps: number of network calls when the caller names none. One step is the posterior mean: the
            estimate with the least squared error, and the most faithful; all T steps draw a sample.
        back_projections: how often results are brought into line with their input by default; see `fidelity`.
        detail_gain: of the mode "realistic": what the detail of its samples is multiplied by; see `boost_detail`.
        detail_steps, detail_transition: of the same mode: network calls (0 is all T), and whether noise is added
            between them ("ancestral") or only the noise of x_T is kept ("deterministic").
        detail_curves: factors by the finest detail of the input, see `detail`: "mean" of a posterior mean's detail,
            "sample" of `detail_gain`, or of the detail of a student's sample; None and what is missing is 1.
        distilled: the denoiser is a student of one call: True draws the sample of its teacher's chain, "mean" gives the
            teacher's posterior mean, the faithful result. There is no other use of it.
        calibration: what `Calibration.to_config` gives, or None.
        check_measure: of the self-check, "value", "burst" or "off", see `self_check`. None is "value" where the chain
            runs on pixels, and "off" with a learned codec, whose own loss would trip it.
        check_threshold: the largest measure, in levels of 255, that is let through.
        bounded: whether values are held near those of the input, see `value_limits`; None is yes where the chain runs
            on pixels, and no with a learned codec.
        uncertainty_head: predicts the error of the default result, with `calibration`; or None.

    Raises:
        ValueError: a value outside what is allowed, or parts that do not belong together.

    >>> import numpy as np
    >>> pipe = ResShiftPipeline.from_shipped()
    >>> pipe(np.zeros((16, 12, 3), np.uint8)).images[0].shape
    (64, 48, 3)
    """

    model_cpu_offload_seq = "denoiser->codec"
    _optional_components = ["codec", "uncertainty_head"]  # noqa: RUF012 - diffusers' own protocol

    @register_to_config
    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: ResShiftScheduler,
        codec: ModelMixin | None = None,
        scale: int = 4,
        upsampling: str = "pillow",
        default_steps: int = 1,
        back_projections: int = 0,
        detail_gain: float = 1.0,
        detail_steps: int = 0,
        detail_transition: str = "ancestral",
        detail_curves: dict[str, list[list[float]]] | None = None,
        distilled: bool | str = False,
        calibration: dict[str, Any] | None = None,
        check_measure: str | None = None,
        check_threshold: float = 8.0,
        bounded: bool | None = None,
        uncertainty_head: UncertaintyHead | None = None,
    ):
        super().__init__()
        for name, value, allowed in (
            ("upsampling", upsampling, get_args(Upsampling)),
            ("detail_transition", detail_transition, tuple(TRANSITIONS)),
            ("check_measure", check_measure or "off", get_args(Measure)),
            ("distilled", distilled, (False, True, "mean")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(str, allowed))}")
        if not check_threshold > 0:
            raise ValueError(f"check_threshold is {check_threshold}; levels of 255 above 0 are needed")
        check_curves(detail_curves)
        if uncertainty_head is not None:
            parts = uncertainty_head, denoiser
            read, given = ({name: part.config.get(name) for name in ("width", "factor")} for part in parts)
            if read != given:
                raise ValueError(f"the uncertainty head is for a denoiser of {read}, not of {given}")
        self.register_modules(denoiser=denoiser, scheduler=scheduler, codec=codec, uncertainty_head=uncertainty_head)
        if denoiser.streams and not self.image_codec.lossless:
            raise ValueError(f"{type(denoiser).__name__} runs on pixels; leave out the codec {type(codec).__name__}")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> "ResShiftPipeline":
        """Load a checkpoint folder (or a hub name); a folder with a LoRA adapter alone is x4 with it.

        Args:
            kwargs: diffusers' (torch_dtype, revision, ...).

        Raises:
            CheckpointError: no checkpoint there, a class that is not ours, or weights that cannot be read, do not fit
                their configuration, or are not finite.
        """
        path = Path(folder).expanduser()
        if not path.is_dir():
            owner, *names = str(folder).split("/")
            here = path.is_absolute() or path.exists() or owner[:1] in (".", "~") or Path(owner).exists()
            if here or len(names) != 1:
                raise CheckpointError(f"no checkpoint folder at {folder} (a folder with model_index.json is expected)")
            path = Path(cls.download(str(folder), **kwargs))
        adapter = next((place for place in (path, path / "adapter") if (place / WEIGHTS).is_file()), None)
        if adapter is not None and not (path / "model_index.json").exists():
            pipeline = cls.from_shipped(**kwargs)
            pipeline.load_adapter(adapter)
            pipeline.register_to_config(_name_or_path=str(path))
            return pipeline
        check_folder(path, kwargs.get("variant"))
        try:
            pipeline = super().from_pretrained(str(path), use_safetensors=True, **kwargs)
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be loaded: {shortened(error)}") from error
        for name in NETWORKS:
            if (network := getattr(pipeline, name)) is not None:
                check_finite(path / name, network)
                for tensor in network.parameters():
                    tensor.data = tensor.data.clone()  # where it lies in the file would decide how a processor rounds
        return pipeline

    @classmethod
    def from_shipped(cls, name: str = DEFAULT, **kwargs: Any) -> "ResShiftPipeline":
        """A checkpoint that comes with the package; CheckpointError for another name."""
        if name not in (bundled := shipped_names()):
            allowed = f"a folder, a bundled name ({', '.join(bundled)}) or {HUB}owner/name"
            raise CheckpointError(f"no checkpoint folder at {name}; give {allowed}")
        return cls.from_pretrained(BUNDLED / name, **kwargs)

    def load_adapter(self, folder: str | Path) -> None:
        """Merge a LoRA adapter into the denoiser: the folder `adapter/` of a checkpoint trained with `lora.rank`.

        CheckpointError if there is none, or it does not fit this denoiser.
        """
        try:
            merge_adapter(self.denoiser, Path(folder))
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        self.drop_uncertainty()

    def drop_uncertainty(self) -> None:
        """Remove head and calibration, which hold for no other weights than those they were trained on."""
        self.register_modules(uncertainty_head=None)
        self.register_to_config(calibration=None)

    @torch.inference_mode()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: OutputType = "np",
        progress: Listener | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **settings: Any,
    ) -> SRResult:
        """Upscale one picture or several.

        Args:
            image: PIL image; array (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1]; tensor (3, H, W) or
                (B, 3, H, W), float in [0, 1]; or a list of these. Grey pictures pass as three equal channels, and
                the mean of the result's channels comes back.
            num_inference_steps, settings: fields of `Sampling`: mode, scale, ensemble_size, precision, memory, ...
            generator: source of the noise; a list gives one to each image. None is a generator seeded 0. Every image
                gets the same noise stream, so that a result does not depend on the images beside it. One step draws no
                noise: its result is a function of the photograph, and the generator is not read.
            output_type: "np" (the input's depth; float for float), "pil" (8 bit), "pt" (float (3, H, W) in [0, 1]).
            progress: called with the share of the work that is done, 0..1, after each band; what it raises ends all.
            callback_on_step_end: as in diffusers, called after each step with (pipeline, step, timestep, tensors).
            callback_on_step_end_tensor_inputs: its tensors, "latents" (x_t) and "x0", (1, C, h, w) in the space of the
                chain. They are read only: parts of the picture are further on in the chain already.

        Raises:
            ValueError: an argument outside what is allowed, named.
        """
        chosen = Sampling(num_inference_steps=num_inference_steps, **settings)
        plan, pictures = self.plan(chosen), as_list(image)
        if output_type not in get_args(OutputType):
            raise ValueError(f"output_type is {output_type!r}; allowed are {', '.join(get_args(OutputType))}")
        report = callback_on_step_end and at_step_end(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        seeds = noise_seeds(generator, len(pictures)) if plan.noise else [None] * len(pictures)
        device, autocast = self._execution_device, AUTOCAST[self.used_precision(chosen.precision)]
        memory = spare_memory(device, chosen.memory)
        self.scheduler.set_timesteps(plan.steps, transition=plan.transition)
        watch = StepWatch(len(pictures) * chosen.ensemble_size * chosen.turns, report, progress)
        result = SRResult([], [], [], [] if chosen.output_uncertainty else None)
        result.account = partial(record_of_pixels, self, chosen, pictures, generator)
        # one by one: sizes may differ, and the activations of one picture already fill a processor
        for picture, seed in zip(pictures, seeds, strict=True):
            prepared = prepare(picture, device, self.denoiser.dtype)
            height, width = prepared.lr.shape[-2:]
            canvas = Canvas(prepared, chosen.size_of(height, width, self.config.scale), output_type)
            unrestored = self._unrestored(picture, chosen) if chosen.strength < 1 else None
            asked = (self.config.detail_curves or {}).get(plan.curve) or chosen.output_uncertainty
            energy = finest_energy(prepared.lr, inner_field(prepared.lr)) if asked else math.inf
            with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                self._upscale(canvas, chosen, plan, seed, energy, memory, watch, result, unrestored)
            result.images.append(canvas.finished())
        return result

    def _upscale(
        self, canvas: Canvas, settings: Sampling, plan: Plan, seed: int | None, energy: float, memory: int,
        watch: StepWatch, result: SRResult, unrestored: Tensor | None,
    ) -> None:  # fmt: skip
        """The road of one picture, in bands of rows from the input to the canvas; adds to `result`."""
        # 1. What rows are written into
        factor, upsampling = self.config.scale, self.config.upsampling
        prepared, lr = canvas.prepared, canvas.prepared.lr.float()  # (1, 3, h, w) in [-1, 1]
        height, width = lr.shape[-2:]
        native, size, channels = (height * factor, width * factor), canvas.size, 1 if prepared.grey else 3
        mean = SampleMean((channels, *native)) if settings.ensemble_size * settings.turns > 1 else None
        scales = ScaleMap(height, width, factor) if settings.output_uncertainty else None
        if lr.device.type == "cpu":  # on a GPU they lie elsewhere
            held = canvas.image, mean.mean if mean else None, scales.values if scales else None, unrestored
            memory = max(0, memory - sum(each.nbytes for each in held if each is not None))
        detail = factor_at((self.config.detail_curves or {}).get(plan.curve), energy)
        # how strong the detail may be: of a sample that the chain itself amplifies, or of the estimate
        gain, after = (1.0, detail) if plan.detail_gain == 1 else (plan.detail_gain * detail, 1.0)
        check = self._self_check(lr)
        rows: Iterator[Tensor] = iter(())

        for way in range(settings.turns):
            # 2. Encode, turned one way
            seen = turn(lr, way)  # (1, 3, h, w) or (1, 3, w, h)
            checked = self._self_check(seen) if way else check
            chain = Chain(
                self.denoiser, self.scheduler, self.image_codec, turn(prepared.lr, way), factor, upsampling, seed, gain,
                (self.uncertainty_head, scales) if scales and not way else None,
            )  # fmt: skip
            given = seen[:, :channels]
            limits = value_limits(given) if self._bounded else None
            for member in range(settings.ensemble_size):
                # 3. Sample and decode, and return to bicubic what contradicts the input
                rows = checked.rows(chain.bands(member, memory, watch))  # (1, 3, n*factor, w*factor) each
                if after != 1:
                    rows = scale_detail(rows, seen, factor, upsampling, after, inner_field(seen))
                if prepared.grey:
                    rows = (band.mean(1, keepdim=True) for band in rows)  # (1, 1, n*factor, w*factor)
                # 4. Project back onto the input, of 8 bits onto what rounds to it; a smaller result in 5
                cell = checked.cell if prepared.levels == 255 else None
                times = plan.back_projections if size == native else 0
                rows = back_project_rows(rows, given, factor, times, limits, cell)
                if mean:
                    mean.add(rows, way)
            check.returned = torch.maximum(check.returned, turn_back(checked.returned, way))

        # 5. Reduce to the size that is wanted, and convert to the form of the output
        rows = iter(mean.mean.split(256, dim=-2)) if mean else rows
        if size != native:
            given = (lr.cpu() if mean else lr)[:, :channels]
            limits = value_limits(given) if self._bounded else None
            rows = at_size(rows, given, native, size, plan.back_projections, limits)
        for band in rows:
            if unrestored is not None:
                same = unrestored[:, :channels, canvas.row : canvas.row + band.shape[-2]].to(band)
                band = torch.lerp(same, band, settings.strength)
            canvas.write(band)
        compare, projected = canvas.compare_with_input, plan.back_projections and settings.strength == 1
        if projected and size == native and {canvas.levels, prepared.levels} == {255}:
            decibel = settle(canvas.image, lr[:, :channels], factor, self._bounded, check.cell, compare)
        else:
            decibel, _ = compare()
        result.consistency.append(decibel)
        result.detail_factor.append(round(detail, 4))
        if scales and self.calibration and result.sigma is not None:
            softness = factor_at(self.calibration.softness, energy)
            sigma = check.mark(scales.sigma(lr, self.calibration, softness))  # (h*factor, w*factor)
            result.sigma.append(sigma if size == native else reduce_map(sigma, size))
        result.bicubic_share.append(check.share())

    def _unrestored(self, picture: Picture, settings: Sampling) -> Tensor:
        """The faithful result of x4, (1, 3, H, W) in [-1, 1], which `strength` blends with the result."""
        wanted = replace(settings, strength=1.0, mode="faithful", num_inference_steps=None, ensemble_size=1,
            output_uncertainty=False)  # fmt: skip
        result = _default_on(self._execution_device)(picture, output_type="np", **vars(wanted))
        return prepare(result.images[0], self._execution_device, torch.float32).lr

    @property
    def image_codec(self) -> Codec:
        """The codec between pictures and the chain: `codec`, or where the checkpoint has none, `PixelCodec`."""
        return LearnedCodec(self.codec) if self.codec else PixelCodec(self.config.scale)

    def __repr__(self) -> str:
        """Five lines: scale and place, denoiser, codec, chain, defaults."""
        net, chain, config = self.denoiser, self.scheduler.config, self.config
        count = sum(parameter.numel() for parameter in net.parameters())
        return (
            f"ResShiftPipeline x{config.scale}, {self.name_or_path or 'not saved'}\n"
            f"  denoiser  {type(net).__name__}, {count:,} parameters, {net.dtype} on {self.device}\n"
            f"  codec     {self.image_codec}\n"
            f"  chain     {chain.num_train_timesteps} steps, kappa {chain.kappa}, predicts {chain.prediction_type}\n"
            f"  defaults  steps {config.default_steps}, back-projections {config.back_projections}"
        )

    def plan(self, settings: Sampling) -> Plan:
        """What the settings mean for this checkpoint. ValueError for a use that it does not have."""
        plan = settings.plan(self.config, len(self.scheduler))
        if settings.output_uncertainty and self.calibration is None:
            raise ValueError("this checkpoint has no uncertainty head; run retinashift calibrate on it, or use x4")
        return plan

    def used_precision(self, precision: Precision) -> Precision:
        """What a precision is on this pipeline's device: never "auto"."""
        if precision != "auto":
            return precision
        return fast_precision(self._execution_device) if self.image_codec.lossless else "fp32"

    @property
    def calibration(self) -> Calibration | None:
        """What the uncertainty head's scales mean; None where there is no head, or it is not calibrated."""
        if self.uncertainty_head is None or self.config.calibration is None:
            return None
        return Calibration.from_config(self.config.calibration)

    def _self_check(self, lr: Tensor) -> SelfCheck:
        measure: Measure = self.config.check_measure or ("value" if self.image_codec.lossless else "off")
        return SelfCheck(lr, self.config.scale, self.config.upsampling, measure, self.config.check_threshold)

    @property
    def _bounded(self) -> bool:
        """Whether `value_limits` hold of a result."""
        return self.image_codec.lossless if self.config.bounded is None else bool(self.config.bounded)


@cache
def _default_on(device: torch.device) -> ResShiftPipeline:
    return ResShiftPipeline.from_shipped().to(device)
