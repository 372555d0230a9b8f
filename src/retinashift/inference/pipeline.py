"""ResShiftPipeline: low-resolution photographs in, reconstructions out. Device, dtype and seed are decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from retinashift.diffusion.noise import noise_of, noise_seeds
from retinashift.diffusion.process import TRANSITIONS
from retinashift.diffusion.sampling import boost_detail, sample
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference import codec_tiles
from retinashift.inference.denoiser_tiles import denoise, planned_side
from retinashift.inference.device import spare_memory
from retinashift.inference.fidelity import back_project_rows, value_limits
from retinashift.inference.gate import CheckpointError, check_finite, check_folder
from retinashift.inference.memory import drop_clean_pages, trim_heap
from retinashift.inference.pictures import (
    Canvas,
    Mask,
    OutputType,
    Picture,
    Prepared,
    as_list,
    as_masks,
    masked,
    measured_consistency,
    prepare,
)
from retinashift.inference.progress import Listener, StepWatch
from retinashift.inference.self_check import Measure, SelfCheck
from retinashift.inference.settings import Mode, Plan, Precision, Sampling
from retinashift.inference.streaming import LightChain, is_scarce, planned_rows, retry_with_smaller_bands
from retinashift.inference.uncertainty import Calibration, SampleMean
from retinashift.models.codec import PixelCodec, Upsampling, upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet, pad_to_multiple
from retinashift.models.vq import VQCodec

Denoiser = LightNet | SwinUNet
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class SRResult(BaseOutput):
    """`images`: one per input, scale times its size, in the form that `output_type` names.

    `consistency`: of each, the PSNR in dB between the input and the image reduced again; inf where they are equal.
    `sigma`: of each, the standard deviation of its values, (H, W) float32 in shares of full scale, where it was asked
    for. See `uncertainty`.
    `calibrated`: whether `sigma` is; else it is the bare spread of the samples. Where the self-check returned a sample
    to bicubic, sigma is at least their difference.
    `bicubic_share`: of each, the share of its field of view, or of a frame without one, that the self-check returned
    to bicubic, 0 to 1; see `self_check`.
    """

    images: list[Any]
    consistency: list[float]
    bicubic_share: list[float]
    sigma: list[np.ndarray] | None = None
    calibrated: bool = False


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
        distilled: the denoiser is a student that draws the sample of a chain in one call; there is no other use of it.
        calibration: what `Calibration.to_config` gives, or None.
        check_measure: of the self-check, "value", "burst" or "off", see `self_check`. None is "value" where the chain
            runs on pixels, and "off" with a learned codec, whose own loss would trip it.
        check_threshold: the largest measure, in levels of 255, that is let through.
        bounded: whether values are held near those of the input, see `value_limits`; None is yes where the chain runs
            on pixels, and no with a learned codec.

    >>> pipe = ResShiftPipeline.from_shipped()
    >>> pipe(np.zeros((16, 12, 3), np.uint8)).images[0].shape
    (64, 48, 3)
    """

    model_cpu_offload_seq = "denoiser->codec"
    _optional_components = ["codec"]  # noqa: RUF012 - diffusers' own protocol

    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: ResShiftScheduler,
        codec: VQModel | VQCodec | None = None,
        scale: int = 4,
        upsampling: str = "pillow",
        default_steps: int = 1,
        back_projections: int = 0,
        detail_gain: float = 1.0,
        detail_steps: int = 0,
        detail_transition: str = "ancestral",
        distilled: bool = False,
        calibration: dict[str, Any] | None = None,
        check_measure: str | None = None,
        check_threshold: float = 8.0,
        bounded: bool | None = None,
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
        self.register_modules(denoiser=denoiser, scheduler=scheduler, codec=codec)
        self.register_to_config(
            scale=scale,
            upsampling=upsampling,
            default_steps=default_steps,
            back_projections=back_projections,
            detail_gain=detail_gain,
            detail_steps=detail_steps,
            detail_transition=detail_transition,
            distilled=distilled,
            calibration=calibration,
            check_measure=check_measure,
            check_threshold=check_threshold,
            bounded=bounded,
        )
        self.pixel_codec = PixelCodec(scale)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> ResShiftPipeline:
        """Load a checkpoint folder (or a hub name); keyword arguments are diffusers' (torch_dtype, revision, ...).

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
        check_folder(path, kwargs.get("variant"))
        try:
            pipeline = super().from_pretrained(str(path), use_safetensors=True, **kwargs)
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        check_finite(path, {"denoiser": pipeline.denoiser, "codec": pipeline.codec})
        return pipeline

    @classmethod
    def from_shipped(cls, name: str = "x4", **kwargs: Any) -> ResShiftPipeline:
        """The checkpoint that comes with the package."""
        return cls.from_pretrained(str(files("retinashift") / "weights" / name), **kwargs)

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
        precision: Precision = "fp32",
        callback: Callable[[dict[str, Any]], None] | None = None,
        mask: Mask | Sequence[Mask] | None = None,
        progress: Listener | None = None,
        mode: Mode | None = None,
        output_uncertainty: bool = False,
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
                gets the same noise stream, so that a result does not depend on the images beside it.
            ensemble_size: samples whose mean is returned. Their number costs time, not memory.
            output_uncertainty: also return how far the samples differ (`sigma`); with all T steps, at least 2 samples.
            output_type: "np" (the input's depth; float for float), "pil" (8 bit), "pt" (float (3, H, W) in [0, 1]).
            back_projections: how often the result is brought into line with the input, so that it gives the input when
                it is reduced again; 0 leaves the network's own estimate, None is the checkpoint's default.
            memory: bytes that the process (on a GPU: its part of that) may hold while it works; None is half of what
                the machine has free. Pictures are computed in bands of rows, so that only the result itself is held
                whole; less memory means thinner bands. A `SwinUNet` looks at the whole
                picture as long as that fits, else at tiles that fade into one another.
            precision: "bf16" and "fp16" compute convolutions and products in half precision (autocast), all else in
                float32. With the shipped checkpoint, on the photograph of the demo, values move by one of 255 levels
                at most, and a processor with matrix units for bf16 (AMX) is twice as fast.
            callback: called after each step with {"image", "member", "step", "steps", "x0", "x_t"}.
            mask: for checkpoints that fill in (inpainting), one for each picture, (H, W): anything but 0 is filled in,
                and all else comes back as it was.
            progress: called with the share of the work that is done, 0..1, after each band of rows of each step; what
                it raises ends the work.

        Raises:
            ValueError: an argument outside what is allowed, named.
        """
        # 1. Check
        settings = Sampling(
            mode=mode,
            num_inference_steps=num_inference_steps,
            ensemble_size=ensemble_size,
            output_uncertainty=output_uncertainty,
            back_projections=back_projections,
            memory=memory,
            precision=precision,
        )
        plan = self.plan(settings)
        images = as_list(image)
        if output_type not in ("np", "pil", "pt"):
            raise ValueError(f"output_type is {output_type!r}; allowed are np, pil, pt")
        calibration = self._calibration(plan.steps, ensemble_size) if output_uncertainty else None
        scale, budget = self.config.scale, spare_memory(self._execution_device, memory)
        masks = as_masks(mask, images, takes_mask=getattr(self.denoiser, "takes_mask", False))
        seeds = noise_seeds(generator, len(images))
        self.scheduler.set_timesteps(plan.steps, transition=plan.transition)
        # 2. Sample, image by image: sizes may differ, and activations of one image already fill a processor
        results: list[Any] = []
        consistency: list[float] = []
        sigmas: list[np.ndarray] = []
        shares: list[float] = []
        for number, (picture, hole, seed) in enumerate(zip(images, masks, seeds, strict=True)):
            prepared = masked(prepare(picture, self._execution_device, self.denoiser.dtype), hole)
            canvas = Canvas(prepared, [side * scale for side in prepared.lr.shape[-2:]], output_type)
            lr, parts = prepared.lr.float(), len(images) * ensemble_size
            check, limits = self._self_check(lr), value_limits(lr) if self._bounded else None
            watches = []
            for member in range(ensemble_size):
                part, where = number * ensemble_size + member, {"image": number, "member": member}
                report = None if callback is None else lambda state, where=where: callback(where | state)
                span = (part / parts, (part + 1) / parts)
                watches.append(StepWatch(lr.shape[-2], plan.steps, span, report, progress))
            with torch.autocast(
                self._execution_device.type, dtype=AUTOCAST[precision], enabled=AUTOCAST[precision] is not None
            ):
                shape = (1 if prepared.grey else 3, *canvas.shape[1:])
                mean = SampleMean(shape, spread=output_uncertainty) if ensemble_size > 1 else None
                kept = canvas.nbytes + (mean.nbytes if mean else 0)  # on a GPU they lie elsewhere
                room = max(0, budget - kept) if self._execution_device.type == "cpu" else budget
                whole = None if self._by_bands else self._encoded(prepared)
                samples = (
                    back_project_rows(
                        check.rows(self._sample(prepared, whole, seed, member, room, plan.detail_gain, watch)),
                        lr,
                        scale,
                        plan.back_projections,
                        limits,
                        prepared.levels == 255,
                    )
                    for member, watch in enumerate(watches)
                )
                if mean:
                    for sample in samples:
                        mean.add(rows.mean(1, keepdim=True) if prepared.grey else rows for rows in sample)
                for rows in mean.bands() if mean else next(samples):
                    canvas.write(rows)
                if mean and output_uncertainty:
                    spread = mean.spread().numpy()
                    sigmas.append(check.mark(calibration.sigma(spread, ensemble_size) if calibration else spread))
            del whole, samples, mean  # their memory is needed for the figures
            results.append(canvas.finished())
            consistency.append(measured_consistency(results[-1], prepared, scale))
            shares.append(check.share())
        return SRResult(
            images=results,
            consistency=consistency,
            bicubic_share=shares,
            sigma=sigmas if output_uncertainty else None,
            calibrated=calibration is not None,
        )

    def plan(self, settings: Sampling) -> Plan:
        """What the settings mean for this checkpoint. ValueError for a use that it does not have."""
        return settings.plan(self.config, len(self.scheduler))

    def _calibration(self, steps: int, samples: int) -> Calibration | None:
        """That of the checkpoint, if it holds for so many steps and samples."""
        if self.config.calibration is None:
            return None
        calibration = Calibration.from_config(self.config.calibration)
        return calibration if calibration.steps == steps and samples >= min(calibration.curves) else None

    def _self_check(self, lr: Tensor) -> SelfCheck:
        measure: Measure = self.config.check_measure or ("value" if self.codec is None else "off")
        return SelfCheck(lr, self.config.scale, self.config.upsampling, measure, self.config.check_threshold)

    @property
    def _bounded(self) -> bool:
        """Whether `value_limits` hold of a result."""
        return self.codec is None if self.config.bounded is None else bool(self.config.bounded)

    @property
    def _by_bands(self) -> bool:
        """Whether rows of the picture can be had without all others."""
        return isinstance(self.denoiser, LightNet) and self.codec is None

    def _encoded(self, prepared: Prepared) -> tuple[Prepared, Tensor]:
        """What all samples of a picture begin with: what the network is given of it, and y0, (1, C, h', w')."""
        given = self._whole_latents(prepared)  # prepared.lr, perhaps extended to the right and below
        y0 = self._encode(given.lr)
        if self.codec is not None:
            self._done(self.codec)
        return given, y0

    def _sample(
        self,
        prepared: Prepared,
        whole: tuple[Prepared, Tensor] | None,
        seed: int,
        member: int,
        budget: int,
        gain: float,
        watch: StepWatch,
    ) -> Iterator[Tensor]:
        """One sample in bands of rows, top to bottom, (1, 3, n, W) float32 in about [-1, 1]."""
        if whole is not None:
            return iter([self._sample_whole(*whole, prepared.lr, seed, member, gain, budget, watch)])
        width, steps = prepared.lr.shape[-1], len(self.scheduler.timesteps)
        rows = planned_rows(width, self.denoiser, budget, steps)
        chain = LightChain(
            self.denoiser,
            self.scheduler,
            prepared.lr,
            self.pixel_codec,
            self.config.upsampling,
            seed,
            member,
            gain,
            prepared.lr.device.type == "cpu" and is_scarce(width, self.denoiser, budget, steps, rows),
            watch.rows,
        )
        return (band.float() for band in retry_with_smaller_bands(chain.bands, rows))

    def _sample_whole(
        self,
        given: Prepared,
        y0: Tensor,
        lr: Tensor,
        seed: int,
        member: int,
        gain: float,
        budget: int,
        watch: StepWatch,
    ) -> Tensor:
        """One sample of a network that looks at the whole picture, (1, 3, H, W) float32 in about [-1, 1]."""

        def predict(x: Tensor, t: int) -> Tensor:
            return self._predict(t, x, given, budget)

        x_t = mean = y0
        with self.denoiser.steady() if isinstance(self.denoiser, SwinUNet) else nullcontext():
            for number, (x_t, x0) in enumerate(sample(self.scheduler, predict, y0, noise_of(seed, member, y0))):
                mean = x0 if number == 0 else mean
                watch.whole(number, x0, x_t)
        if gain != 1:
            x_t = boost_detail(x_t, mean, gain)
        self._done(self.denoiser)
        image = self._decode(x_t, lr).float()
        if self.codec is not None:
            self._done(self.codec)
        return image

    def _predict(self, t: int, sample: Tensor, given: Prepared, budget: int) -> Tensor:
        """The network's prediction, by tiles where the picture is too large for the memory."""
        net = self.denoiser

        def call(sample: Tensor, lq: Tensor, mask: Tensor | None) -> Tensor:
            return (net(sample, t, lq=lq) if mask is None else net(sample, t, lq=lq, mask=mask)).sample

        if not isinstance(net, SwinUNet):
            return call(sample, given.lr, given.mask)
        return denoise(call, net, sample, given.lr, given.mask, planned_side(net, budget))

    def _done(self, part: nn.Module) -> None:
        """A part has done its work for a picture: on a CPU its weights and activations make room for the next one's."""
        if self._execution_device.type == "cpu":
            drop_clean_pages(part)
            trim_heap()

    def _whole_latents(self, prepared: Prepared) -> Prepared:
        """A learned codec and the network need whole blocks of pixels; pictures are extended by reflection."""
        if self.codec is None:
            return prepared
        multiple = codec_tiles.latent_factor(self.codec)
        if isinstance(self.denoiser, SwinUNet):
            multiple = self.denoiser.size_multiple * self.denoiser.lq_ratio
        mask = None if prepared.mask is None else pad_to_multiple(prepared.mask, multiple)
        return replace(prepared, lr=pad_to_multiple(prepared.lr, multiple), mask=mask)

    def _encode(self, lr: Tensor) -> Tensor:
        """(1, 3, h, w) -> y0, the enlarged image in the space of the chain."""
        enlarged = upsample_bicubic(lr, self.config.scale, self.config.upsampling)  # (1, 3, h*scale, w*scale)
        if self.codec is None:
            return self.pixel_codec.encode(enlarged)
        return codec_tiles.encode(self.codec, enlarged)

    def _decode(self, x0: Tensor, lr: Tensor) -> Tensor:
        """x0 -> the image of `scale` times the size of `lr`; what was extended is cut off."""
        image = self.pixel_codec.decode(x0) if self.codec is None else codec_tiles.decode(self.codec, x0)
        height, width = (side * self.config.scale for side in lr.shape[-2:])
        return image[..., :height, :width]
