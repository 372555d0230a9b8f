"""ResShiftPipeline: low-resolution photographs in, reconstructions out. Device, dtype and seed are decided here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from retinashift.diffusion.noise import noise_seeds
from retinashift.diffusion.process import TRANSITIONS
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.detail import check_curves, factor_at, finest_energy, scale_detail
from retinashift.inference.fidelity import back_project_rows, value_limits
from retinashift.inference.gate import NETWORKS, CheckpointError, check_finite, check_folder
from retinashift.inference.memory import fast_precision, spare_memory
from retinashift.inference.pictures import (
    Canvas,
    OutputType,
    Picture,
    SampleMean,
    as_list,
    measured_consistency,
    prepare,
    turn,
    turn_back,
)
from retinashift.inference.progress import Listener, Report, StepEnd, StepWatch, at_step_end
from retinashift.inference.result import SRResult
from retinashift.inference.self_check import Measure, SelfCheck
from retinashift.inference.settings import Mode, Plan, Precision, Sampling
from retinashift.inference.sizes import at_size, reduce_map
from retinashift.inference.streaming import LightChain
from retinashift.inference.tiles import LearnedCodec
from retinashift.inference.uncertainty import Calibration, ScaleMap
from retinashift.inference.whole import WholeChain
from retinashift.models.adapters import adapter_in, add_adapter
from retinashift.models.codec import Codec, PixelCodec, Upsampling
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.uncertainty_head import UncertaintyHead

Denoiser = LightNet | SwinUNet
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ResShiftPipeline(DiffusionPipeline):
    """Super-resolution by residual shifting.

    Args:
        denoiser: `LightNet` or `SwinUNet`.
        scheduler: the chain.
        codec: `VQCodec` or diffusers' `VQModel`, or None for the lossless `PixelCodec` of the same factor as `scale`.
        scale: enlargement factor.
        upsampling: convention of the bicubic enlargement that is y0; it must be that of training.
        default_steps: number of network calls when the caller names none. One step is the posterior mean: the
            estimate with the least squared error, and the most faithful; all T steps draw a sample.
        back_projections: how often results are brought into line with their input when the caller names no number;
            see `fidelity`.
        detail_gain: of the mode "realistic": what the detail of its samples is multiplied by; see `boost_detail`.
        detail_steps, detail_transition: of the same mode: network calls (0 is all T), and whether noise is added
            between them ("ancestral") or only that of x_T is kept ("deterministic").
        detail_curves: factors by the finest detail of the input, see `detail`: "mean" of a posterior mean's detail,
            "sample" of `detail_gain`, or of the detail of a student's sample; None and what is missing is 1.
        distilled: the denoiser is a student that draws the sample of a chain in one call; there is no other use of it.
        calibration: what `Calibration.to_config` gives, or None.
        check_measure: of the self-check, "value", "burst" or "off", see `self_check`. None is "value" where the chain
            runs on pixels, and "off" with a learned codec, whose own loss would trip it.
        check_threshold: the largest measure, in levels of 255, that is let through.
        bounded: whether values are held near those of the input, see `value_limits`; None is yes where the chain runs
            on pixels, and no with a learned codec.
        uncertainty_head: predicts the error of the default result, with `calibration`; or None.

    >>> import numpy as np
    >>> pipe = ResShiftPipeline.from_shipped()
    >>> pipe(np.zeros((16, 12, 3), np.uint8)).images[0].shape
    (64, 48, 3)
    """

    model_cpu_offload_seq = "denoiser->codec"
    _optional_components = ["codec", "uncertainty_head"]  # noqa: RUF012 - diffusers' own protocol

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
        distilled: bool = False,
        calibration: dict[str, Any] | None = None,
        check_measure: str | None = None,
        check_threshold: float = 8.0,
        bounded: bool | None = None,
        uncertainty_head: UncertaintyHead | None = None,
    ):
        super().__init__()
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling is {upsampling!r}; allowed are {', '.join(get_args(Upsampling))}")
        if detail_transition not in TRANSITIONS:
            raise ValueError(f"detail_transition is {detail_transition!r}; allowed are {', '.join(TRANSITIONS)}")
        if check_measure is not None and check_measure not in get_args(Measure):
            raise ValueError(f"check_measure is {check_measure!r}; allowed are {', '.join(get_args(Measure))}")
        if not check_threshold > 0:
            raise ValueError(f"check_threshold is {check_threshold}; levels of 255 above 0 are needed")
        check_curves(detail_curves)
        if uncertainty_head is not None:
            read, given = (
                {name: part.config.get(name) for name in ("width", "factor")} for part in (uncertainty_head, denoiser)
            )
            if read != given or codec is not None:
                raise ValueError(f"the uncertainty head is for a denoiser of {read} without codec, not of {given}")
        self.register_modules(denoiser=denoiser, scheduler=scheduler, codec=codec, uncertainty_head=uncertainty_head)
        self.register_to_config(
            scale=scale, upsampling=upsampling, default_steps=default_steps, back_projections=back_projections,
            detail_gain=detail_gain, detail_steps=detail_steps, detail_transition=detail_transition,
            detail_curves=detail_curves, distilled=distilled, calibration=calibration, check_measure=check_measure,
            check_threshold=check_threshold, bounded=bounded,
        )  # fmt: skip

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> ResShiftPipeline:
        """Load a checkpoint folder (or a hub name); keyword arguments are diffusers' (torch_dtype, revision, ...).

        A folder that holds a LoRA adapter alone is `x4` with that adapter, and needs no peft.

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
        if not (path / "model_index.json").exists() and (adapter := adapter_in(path)):
            pipeline = cls.from_shipped(**kwargs)
            try:
                add_adapter(pipeline.denoiser, adapter)
            except ValueError as error:
                raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
            pipeline.drop_uncertainty()
            pipeline.register_to_config(_name_or_path=str(path))
            return pipeline
        check_folder(path, kwargs.get("variant"))
        try:
            pipeline = super().from_pretrained(str(path), use_safetensors=True, **kwargs)
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        check_finite(path, {name: getattr(pipeline, name) for name in NETWORKS})
        return pipeline

    @classmethod
    def from_shipped(cls, name: str = "x4", **kwargs: Any) -> ResShiftPipeline:
        """A checkpoint that comes with the package; CheckpointError for another name."""
        from retinashift.inference.checkpoints import shipped_names  # which opens checkpoints by this class

        if name not in shipped_names():
            raise CheckpointError(f"no checkpoint named {name!r} is bundled; there are {', '.join(shipped_names())}")
        return cls.from_pretrained(Path(str(files("retinashift") / "weights" / name)), **kwargs)

    def load_adapter(self, folder: str | Path) -> None:
        """Merge a LoRA adapter into the denoiser: the folder `adapter/` of a checkpoint trained with `lora.rank`.

        Raises:
            CheckpointError: there is none, it does not fit this denoiser, or the extra `lora` is not installed.
        """
        from retinashift.models.adapters import merge_adapter

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
        ensemble_size: int = 1,
        output_type: OutputType = "np",
        back_projections: int | None = None,
        memory: int | None = None,
        precision: Precision = "auto",
        callback: Report | None = None,
        progress: Listener | None = None,
        mode: Mode | None = None,
        output_uncertainty: bool = False,
        scale: float | None = None,
        longest_side: int | None = None,
        turns: int = 1,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> SRResult:
        """Enlarge one picture or several.

        Args:
            image: PIL image; array (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1]; tensor (3, H, W) or
                (B, 3, H, W), float in [0, 1]; or a list of these. Grey pictures pass as three equal channels, and
                the mean of the result's channels comes back.
            num_inference_steps: network calls a sample, 1..T; None is what the mode says.
            mode: "faithful", one step: the posterior mean, nearest to the truth on average and smoother than it.
                "realistic", the checkpoint's `detail_steps` and `detail_gain`: a sample, with detail as sharp as that
                of photographs and often in another place. None is the checkpoint's default number of steps.
            generator: source of the noise; a list gives one to each image. None is a generator seeded 0. Every image
                gets the same noise stream, so that a result does not depend on the images beside it. One step draws no
                noise: its result is a function of the photograph, and the generator is not read.
            ensemble_size: samples whose mean is returned. Their number costs time, not memory.
            scale, longest_side, turns, precision: see `Sampling`.
            output_uncertainty: also return the error to expect of each pixel (`sigma`), from the same call; for the
                one-step result of a checkpoint with an uncertainty head.
            output_type: "np" (the input's depth; float for float), "pil" (8 bit), "pt" (float (3, H, W) in [0, 1]).
            back_projections: how often the result is brought into line with the input, so that it gives the input when
                it is reduced again; 0 leaves the network's own estimate, None is the checkpoint's default.
            memory: bytes that the process (on a GPU: its part of that) may hold; None is half of what is free. Pictures
                are computed in bands of rows, and only the result is held whole; less memory means thinner bands. A
                `SwinUNet` looks at the whole picture as long as that fits, else at tiles that are blended.
            callback: called after each step with {"image", "member", "step", "steps", "x0", "x_t"}.
            callback_on_step_end: as in diffusers, called after each step with (pipeline, step, timestep, tensors).
            callback_on_step_end_tensor_inputs: its tensors, "latents" (x_t) and "x0". They are read only: parts of the
                picture are further on in the chain already.
            progress: called with the share of the work that is done, 0..1, after each band of rows of each step; what
                it raises ends the work.

        Raises:
            ValueError: an argument outside what is allowed, named.
        """
        # 1. Check the arguments
        settings = Sampling(
            mode=mode, num_inference_steps=num_inference_steps, ensemble_size=ensemble_size, precision=precision,
            output_uncertainty=output_uncertainty, back_projections=back_projections, memory=memory,
            scale=scale, longest_side=longest_side, turns=turns,
        )  # fmt: skip
        plan, images = self.plan(settings), as_list(image)
        if output_type not in get_args(OutputType):
            raise ValueError(f"output_type is {output_type!r}; allowed are {', '.join(get_args(OutputType))}")
        if callback_on_step_end is not None:
            callback = at_step_end(self, callback_on_step_end, callback_on_step_end_tensor_inputs, callback)
        calibration = self.calibration if output_uncertainty else None
        device, factor, budget = self._execution_device, self.config.scale, spare_memory(self._execution_device, memory)
        autocast = AUTOCAST[self.used_precision(precision)]
        self.scheduler.set_timesteps(plan.steps, transition=plan.transition)
        result = SRResult([], [], [], [] if output_uncertainty else None)
        samples = ensemble_size * turns
        parts = len(images) * samples

        # Image by image: sizes may differ, and the activations of one image already fill a processor
        seeds = noise_seeds(generator, len(images)) if plan.noise else [None] * len(images)
        for number, (picture, seed) in enumerate(zip(images, seeds, strict=True)):
            # 2. Prepare the input, and what the result is written into
            prepared = prepare(picture, device, self.denoiser.dtype)
            lr = prepared.lr.float()  # (1, 3, h, w) in [-1, 1]
            native = lr.shape[-2] * factor, lr.shape[-1] * factor
            size = settings.size_of(lr.shape[-2], lr.shape[-1], factor)
            canvas = Canvas(prepared, size, output_type)
            channels = 1 if prepared.grey else 3
            mean = SampleMean((channels, *native)) if samples > 1 else None
            scales = ScaleMap(lr.shape[-2], lr.shape[-1], factor) if calibration else None
            kept = sum(held.nbytes for held in (canvas, mean, scales) if held)  # on a GPU they lie elsewhere
            room = max(0, budget - kept) if device.type == "cpu" else budget
            check, limits = self._self_check(lr), value_limits(lr) if self._bounded else None
            curve = (self.config.detail_curves or {}).get(plan.curve)
            detail = factor_at(curve, finest_energy(lr)) if curve else 1.0
            inside = plan.detail_gain != 1  # the chain amplifies what a sample adds to its mean

            with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                for way in range(turns):
                    # 3. Encode, turned one way: y0 is the interpolated input in the space of the chain
                    seen = turn(lr, way)  # (1, 3, h, w) or (1, 3, w, h)
                    checked = self._self_check(seen) if way else check
                    bounds = limits and (turn(limits[0], way), turn(limits[1], way))
                    gain = plan.detail_gain * (detail if inside else 1)
                    chain = self._chain(turn(prepared.lr, way), seed, gain, None if way else scales)
                    for member in range(ensemble_size):
                        done = way * ensemble_size + member
                        span = (number * samples + done) / parts, (number * samples + done + 1) / parts
                        report = self._report(callback, number, done)
                        watch = StepWatch(seen.shape[-2], plan.steps, span, report, progress)
                        # 4. Sample and decode, rows as they come
                        rows = chain.bands(member, room, watch)  # (1, 3, n*factor, w*factor) each
                        # 5. Return to bicubic what contradicts the input
                        rows = checked.rows(rows)  # (1, 3, n*factor, w*factor)
                        if detail != 1 and not inside:
                            rows = scale_detail(rows, seen, factor, self.config.upsampling, detail)
                        # 6. Project back onto the input, of 8 bits onto what rounds to it; a smaller result in 8
                        if prepared.grey:
                            rows = (band.mean(1, keepdim=True).expand_as(band) for band in rows)
                        cell = checked.cell if prepared.levels == 255 else None
                        times = plan.back_projections if size == native else 0
                        rows = back_project_rows(rows, seen, factor, times, bounds, cell)
                        # 7. Average the samples
                        if mean:
                            mean.add((band.mean(1, keepdim=True) if prepared.grey else band for band in rows), way)
                    if way:
                        check.returned = torch.maximum(check.returned, turn_back(checked.returned, way))
                # 8. Reduce to the size that is wanted, and convert to the form of the output
                rows = mean.bands() if mean else rows
                for band in rows if size == native else at_size(rows, lr, native, size, plan.back_projections, limits):
                    canvas.write(band)
                if scales and calibration and result.sigma is not None:
                    scales.flatten(lr)
                    sigma = check.mark(scales.values.mul_(calibration.factor).numpy())  # (h*factor, w*factor)
                    result.sigma.append(sigma if size == native else reduce_map(sigma, size))
            del chain, rows, mean  # the measurement needs their memory

            # 9. Measure
            result.images.append(canvas.finished())
            result.consistency.append(measured_consistency(result.images[-1], prepared))
            result.bicubic_share.append(check.share())
            result.detail_factor.append(round(detail, 4))
        from retinashift.inference.record import account_of  # which hashes checkpoints of this class

        result.account = account_of(self, settings, images, generator)
        return result

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
            f"  codec     {self.image_codec if self.image_codec.lossless else type(self.codec).__name__}\n"
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

    def _chain(
        self, lr: Tensor, seed: int | None, detail_gain: float, scales: ScaleMap | None = None
    ) -> LightChain | WholeChain:
        """The samples of one picture, lr (1, 3, h, w): by bands where the network streams, else whole."""
        net, codec, config = self.denoiser, self.image_codec, self.config
        if net.streams and isinstance(codec, PixelCodec):
            uncertainty = (self.uncertainty_head, scales) if scales else None
            return LightChain(net, self.scheduler, codec, lr, config.upsampling, seed, detail_gain, uncertainty)
        return WholeChain(net, self.scheduler, codec, lr, config.scale, config.upsampling, seed, detail_gain)

    @staticmethod
    def _report(callback: Report | None, image: int, member: int) -> Report | None:
        """The callback, told which image and sample a step belongs to."""
        return None if callback is None else lambda state: callback({"image": image, "member": member} | state)

    def _self_check(self, lr: Tensor) -> SelfCheck:
        measure: Measure = self.config.check_measure or ("value" if self.image_codec.lossless else "off")
        return SelfCheck(lr, self.config.scale, self.config.upsampling, measure, self.config.check_threshold)

    @property
    def _bounded(self) -> bool:
        """Whether `value_limits` hold of a result."""
        return self.image_codec.lossless if self.config.bounded is None else bool(self.config.bounded)


# so that DiffusionPipeline.from_pretrained(folder) finds the class that a checkpoint names
diffusers.ResShiftPipeline = ResShiftPipeline
