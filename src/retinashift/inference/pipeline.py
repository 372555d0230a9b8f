"""ResShiftPipeline: low-resolution photographs in, reconstructions out. Device, dtype and seed are decided here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from retinashift.diffusion.noise import normal_rows
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.fundus import eye_columns
from retinashift.inference import codec_tiles
from retinashift.inference.device import spare_memory
from retinashift.inference.fidelity import back_project_rows, consistency_db
from retinashift.inference.progress import Listener, StepWatch
from retinashift.inference.streaming import LightChain, halving, planned_rows
from retinashift.models.codec import PixelCodec, Upsampling, upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.light_stream import Needed
from retinashift.models.swin_unet import SwinUNet, pad_to_multiple
from retinashift.models.vq import VQCodec

Denoiser = LightNet | SwinUNet
Picture = Image.Image | np.ndarray | Tensor
Mask = Image.Image | np.ndarray
OutputType = Literal["np", "pil", "pt"]
Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# A checkpoint names its classes; only these, which are imported above, are loaded, whatever the file says.
ALLOWED_COMPONENTS = {
    "denoiser": (["retinashift.models.light_net", "LightNet"], ["retinashift.models.swin_unet", "SwinUNet"]),
    "scheduler": (["retinashift.diffusion.scheduler", "ResShiftScheduler"],),
    "codec": ([None, None], ["diffusers", "VQModel"], ["retinashift.models.vq", "VQCodec"]),
}


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used, said in one line."""


@dataclass
class SRResult(BaseOutput):
    """`images`: one per input, scale times its size, in the form that `output_type` names.

    `consistency`: of each, the PSNR in dB between the input and the image reduced again; inf where they are equal.
    """

    images: list[Any]
    consistency: list[float]


@dataclass(frozen=True)
class _Prepared:
    """One input as the chain sees it: `lr` (1, 3, h, w) in [-1, 1]; `grey` and `levels` tell how to go back.

    `mask` (1, 1, h, w), 1 where the picture is to be filled in and -1 elsewhere, or None.
    """

    lr: Tensor
    grey: bool
    levels: int | None
    """255 or 65535 for integer pictures, None for float ones."""
    mask: Tensor | None = None


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
    ):
        super().__init__()
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling is {upsampling!r}; allowed are {', '.join(get_args(Upsampling))}")
        self.register_modules(denoiser=denoiser, scheduler=scheduler, codec=codec)
        self.register_to_config(
            scale=scale, upsampling=upsampling, default_steps=default_steps, back_projections=back_projections
        )
        self.pixel_codec = PixelCodec(scale)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> ResShiftPipeline:
        """Load a checkpoint folder (or a hub name); keyword arguments are diffusers' (torch_dtype, revision, ...).

        Raises:
            CheckpointError: no checkpoint there, a class that is not ours, or weights that cannot be read.
        """
        path = Path(folder).expanduser()
        if not path.is_dir():
            if path.is_absolute() or path.exists() or str(folder).count("/") != 1 or str(folder).startswith("."):
                raise CheckpointError(f"no checkpoint folder at {folder} (a folder with model_index.json is expected)")
            path = Path(cls.download(str(folder), **kwargs))
        _check_index(path)
        try:
            return super().from_pretrained(str(path), use_safetensors=True, **kwargs)
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error

    @classmethod
    def from_shipped(cls, name: str = "x4", **kwargs: Any) -> ResShiftPipeline:
        """The checkpoint that comes with the package."""
        return cls.from_pretrained(str(files("retinashift") / "weights" / name), **kwargs)

    @torch.inference_mode()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        ensemble_size: int = 1,
        output_type: OutputType = "np",
        back_projections: int | None = None,
        memory: int | None = None,
        whole_frame: bool = False,
        precision: Precision = "fp32",
        callback: Callable[[dict[str, Any]], None] | None = None,
        mask: Mask | Sequence[Mask] | None = None,
        progress: Listener | None = None,
    ) -> SRResult:
        """Enlarge one picture or several.

        Args:
            image: PIL image; array (H, W) or (H, W, 3), uint8, uint16 or float in [0, 1]; tensor (3, H, W) or
                (B, 3, H, W), float in [0, 1]; or a list of these. Grey pictures pass as three equal channels, and
                the mean of the result's channels comes back.
            num_inference_steps: network calls a sample, 1..T; None is the checkpoint's default.
            generator: source of the noise; a list gives one to each image. None is a generator seeded 0. Every image
                gets the same noise stream, so that a result does not depend on the images beside it.
            ensemble_size: samples whose mean is returned.
            output_type: "np" (the input's depth; float for float), "pil" (8 bit), "pt" (float (3, H, W) in [0, 1]).
            back_projections: how often the result is brought into line with the input, so that it gives the input when
                it is reduced again; 0 leaves the network's own estimate, None is the checkpoint's default.
            memory: bytes that the process (on a GPU: its part of that) may hold while it works; None is half of what
                the machine has free. Pictures are computed in bands of rows, so that only the result itself is held
                whole; less memory means thinner bands and changes nothing but the last bits. A `SwinUNet` looks at the
                whole picture at once: it takes what it needs.
            whole_frame: let the network work on the dark surround of the eye too. Without it the surround is the
                plain bicubic enlargement, and what is inside the eye is the same. For `LightNet`.
            precision: "bf16" and "fp16" compute convolutions and products in half precision (autocast), all else in
                float32. With the shipped checkpoint, on the photograph of the demo, values move by one of 255 levels
                at most, and a processor with such arithmetic is half as fast again.
            callback: called after each step with {"image", "member", "step", "steps", "x0", "x_t"}.
            mask: for checkpoints that fill in (inpainting), one for each picture, (H, W): anything but 0 is filled in,
                and all else comes back as it was.
            progress: called with the share of the work that is done, 0..1, after each band of rows of each step; what
                it raises ends the work.

        Raises:
            ValueError: an argument outside what is allowed, named.
        """
        # 1. Check
        images = _as_list(image)
        if output_type not in ("np", "pil", "pt"):
            raise ValueError(f"output_type is {output_type!r}; allowed are np, pil, pt")
        if ensemble_size < 1:
            raise ValueError(f"ensemble_size is {ensemble_size}; it must be at least 1")
        if precision not in AUTOCAST:
            raise ValueError(f"precision is {precision!r}; allowed are {', '.join(AUTOCAST)}")
        if memory is not None and memory < 1:
            raise ValueError(f"memory is {memory}; a number of bytes is needed")
        scale, budget = self.config.scale, spare_memory(self._execution_device, memory)
        masks = _as_masks(mask, images, takes_mask=getattr(self.denoiser, "takes_mask", False))
        seeds = _noise_seeds(generator, len(images))
        self.scheduler.set_timesteps(num_inference_steps or self.config.default_steps)
        # 2. Sample, image by image: sizes may differ, and activations of one image already fill a processor
        results, consistency = [], []
        for number, (picture, hole, seed) in enumerate(zip(images, masks, seeds, strict=True)):
            prepared = _masked(_prepare(picture, self._execution_device, self.denoiser.dtype), hole)
            needed = self._needed(prepared, whole_frame)
            canvas = _Canvas(prepared, [side * scale for side in prepared.lr.shape[-2:]], output_type)
            times = self.config.back_projections if back_projections is None else back_projections
            height, parts = prepared.lr.shape[-2], len(images) * ensemble_size
            watches = []
            for member in range(ensemble_size):
                part, where = number * ensemble_size + member, {"image": number, "member": member}
                report = None if callback is None else lambda state, where=where: callback(where | state)
                span = (part / parts, (part + 1) / parts)
                watches.append(StepWatch(height, self.scheduler.num_inference_steps, span, report, progress))
            samples = (
                back_project_rows(
                    self._sample(prepared, needed, seed, member, budget, watch), prepared.lr.float(), scale, times
                )
                for member, watch in enumerate(watches)
            )
            with torch.autocast(
                self._execution_device.type, dtype=AUTOCAST[precision], enabled=AUTOCAST[precision] is not None
            ):
                for rows in next(samples) if ensemble_size == 1 else _mean(samples, canvas.shape):
                    canvas.write(rows)
            results.append(canvas.finished())
            consistency.append(_measured_consistency(results[-1], prepared, scale))
        return SRResult(images=results, consistency=consistency)

    def _sample(
        self,
        prepared: _Prepared,
        needed: Needed,
        seed: int,
        member: int,
        budget: int,
        watch: StepWatch,
    ) -> Iterator[Tensor]:
        """One sample in bands of rows, top to bottom, (1, 3, n, W) float32 in about [-1, 1]."""
        if not (isinstance(self.denoiser, LightNet) and self.codec is None):
            return iter([self._sample_whole(prepared, seed, member, watch)])
        chain = LightChain(
            self.denoiser,
            self.scheduler,
            prepared.lr,
            needed,
            self.pixel_codec,
            self.config.upsampling,
            seed,
            member,
            watch.rows,
        )
        rows = planned_rows(prepared.lr.shape[-1], self.denoiser, budget)
        return (band.float() for band in halving(chain.bands, rows))

    def _sample_whole(self, prepared: _Prepared, seed: int, member: int, watch: StepWatch) -> Tensor:
        """One sample of a network that looks at the whole picture, (1, 3, H, W) float32 in about [-1, 1]."""
        given = self._whole_latents(prepared)  # prepared.lr, perhaps extended to the right and below
        y0 = self._encode(given.lr)  # (1, C, h', w')

        def draw(number: int) -> Tensor:
            # drawn on the CPU in float32, so that the noise is the same on every device and in every dtype
            _, channels, height, width = y0.shape
            return normal_rows(seed, (member, number), 0, height, channels, width).to(y0)

        x_t = self.scheduler.init_noise(y0, noise=draw(0))
        for number, t in enumerate(self.scheduler.timesteps.tolist()):
            prediction = _predict(self.denoiser, t, self.scheduler.scale_model_input(x_t, t), given.lr, given.mask)
            x_t, x0 = self.scheduler.step(prediction, t, x_t, y0, noise=draw(number + 1), return_dict=False)
            watch.whole(number, x0, x_t)
        return self._decode(x_t, prepared.lr).float()

    def _needed(self, prepared: _Prepared, whole_frame: bool) -> Needed:
        """Where the network is to work: on the eye, or on all that there is."""
        height, width = prepared.lr.shape[-2:]
        if whole_frame:
            return Needed(np.tile(np.array([0, width]), (height, 1)), width)
        pixels = (prepared.lr[0].float() * 127.5 + 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return Needed(eye_columns(pixels), width)

    def _whole_latents(self, prepared: _Prepared) -> _Prepared:
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


def _predict(denoiser: Denoiser, t: int, sample: Tensor, lq: Tensor, mask: Tensor | None = None) -> Tensor:
    return (denoiser(sample, t, lq=lq) if mask is None else denoiser(sample, t, lq=lq, mask=mask)).sample


def _check_index(folder: Path) -> None:
    """Refuse a folder that is not our checkpoint before anything it names is imported."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no model_index.json") from None
    except ValueError:
        raise CheckpointError(f"{folder}/model_index.json is not JSON") from None
    if not isinstance(index, dict) or index.get("_class_name") != "ResShiftPipeline":
        raise CheckpointError(f"{folder} is not a RetinaShift checkpoint (its pipeline class is not ResShiftPipeline)")
    for name, value in index.items():
        if isinstance(value, list) and value not in ALLOWED_COMPONENTS.get(name, ()):
            raise CheckpointError(f"{folder} names {value} as its {name}, which is not allowed")
    for name in ("denoiser", "scheduler"):
        if name not in index:
            raise CheckpointError(f"{folder}/model_index.json names no {name}")
        if not (folder / name).is_dir():
            raise CheckpointError(f"{folder} lacks the folder {name}")


def _as_list(image: Picture | Sequence[Picture]) -> list[Picture]:
    if isinstance(image, (Image.Image, np.ndarray)):
        return [image]
    if isinstance(image, Tensor) and image.ndim == 3:
        return [image]
    return list(image)


def _as_masks(
    mask: Mask | Sequence[Mask] | None, images: list[Picture], takes_mask: bool
) -> Sequence[np.ndarray | None]:
    """One (H, W) bool array for each image, or None for each."""
    if takes_mask != (mask is not None):
        wanted = "fills in, so a mask is needed" if takes_mask else "does not fill in, so a mask means nothing to it"
        raise ValueError(f"this checkpoint {wanted}")
    if mask is None:
        return [None] * len(images)
    masks = [np.asarray(m) for m in ([mask] if isinstance(mask, (Image.Image, np.ndarray)) else mask)]
    for array in masks:
        if array.ndim != 2:
            raise ValueError(f"a mask has shape {array.shape}; (H, W) is needed")
    if len(masks) != len(images):
        raise ValueError(f"{len(masks)} masks were given for {len(images)} images; give one each")
    return [array != 0 for array in masks]


def _masked(prepared: _Prepared, hole: np.ndarray | None) -> _Prepared:
    """The hole black, as in training, and beside it as 1 and -1."""
    if hole is None:
        return prepared
    if hole.shape != prepared.lr.shape[-2:]:
        height, width = prepared.lr.shape[-2:]
        raise ValueError(f"the mask is {hole.shape[1]}x{hole.shape[0]} and its image {width}x{height}")
    mask = torch.from_numpy(hole)[None, None].to(prepared.lr.device)
    return replace(prepared, lr=prepared.lr.masked_fill(mask, -1), mask=mask.to(prepared.lr) * 2 - 1)


def _noise_seeds(generator: torch.Generator | list[torch.Generator] | None, count: int) -> list[int]:
    """One number per image from which its noise streams come."""
    if isinstance(generator, list):
        if len(generator) != count:
            raise ValueError(
                f"{len(generator)} generators were given for {count} images; give one each, or one for all"
            )
        return [_draw_seed(g) for g in generator]
    return [_draw_seed(generator or torch.Generator().manual_seed(0))] * count


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _prepare(picture: Picture, device: torch.device, dtype: torch.dtype) -> _Prepared:
    """Any accepted picture as a (1, 3, h, w) tensor in [-1, 1]."""
    if isinstance(picture, Image.Image):
        if picture.mode not in ("L", "RGB", "I;16"):
            raise ValueError(f"image mode is {picture.mode}; L, RGB and I;16 are supported (convert it first)")
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        levels = {"uint8": 255, "uint16": 65535}.get(picture.dtype.name)
        if levels is None and picture.dtype.kind != "f":
            raise ValueError(f"image is {picture.dtype}; uint8, uint16 and float in [0, 1] are supported")
        grey = picture.ndim == 2
        if not grey and (picture.ndim != 3 or picture.shape[2] != 3):
            raise ValueError(f"image has shape {picture.shape}; (H, W) and (H, W, 3) are supported")
        array = picture.astype(np.float32) / (levels or 1)
        tensor = torch.from_numpy(array)[None] if grey else torch.from_numpy(array).permute(2, 0, 1)
    else:
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
            raise ValueError(
                f"tensor is {tuple(picture.shape)} {picture.dtype}; float (3, H, W) in [0, 1] is supported"
            )
        tensor, levels, grey = picture.float(), None, False
    if min(tensor.shape[-2:]) < 1:
        raise ValueError(f"image is {tensor.shape[-1]}x{tensor.shape[-2]}; it is empty")
    if levels is None and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(f"float image spans {tensor.min():.3g}..{tensor.max():.3g}; it must lie in [0, 1]")
    lr = (tensor.expand(3, -1, -1)[None] * 2 - 1).to(device, dtype)  # (1, 3, h, w)
    return _Prepared(lr, grey, levels)


class _Canvas:
    """The finished image, which rows in about [-1, 1] are written into; clamped to what its form can hold."""

    def __init__(self, prepared: _Prepared, size: Sequence[int], output_type: OutputType):
        self.prepared, self.output_type, self.row = prepared, output_type, 0
        height, width = size
        self.shape = (3, height, width)
        self.levels = 255 if output_type == "pil" else prepared.levels
        if output_type == "pt":
            self.image: Any = torch.empty(self.shape)
        else:
            dtype = {None: np.float32, 255: np.uint8, 65535: np.uint16}[self.levels]
            self.image = np.empty((height, width) if prepared.grey else (height, width, 3), dtype)

    def write(self, rows: Tensor) -> None:
        """The next rows, (1, 3, n, W)."""
        band = (rows[0] / 2 + 0.5).clamp(0, 1).cpu()
        here = slice(self.row, self.row + band.shape[-2])
        self.row = here.stop
        if self.prepared.mask is not None:  # what is not filled in comes back as it was
            known = (self.prepared.mask[0, :, here] <= 0).cpu()
            band = torch.where(known, (self.prepared.lr[0, :, here].float() / 2 + 0.5).clamp(0, 1).cpu(), band)
        if self.output_type == "pt":
            self.image[:, here] = band
            return
        array = band.mean(0).numpy() if self.prepared.grey else band.permute(1, 2, 0).numpy()
        self.image[here] = array if self.levels is None else np.rint(array * self.levels)

    def finished(self) -> Any:
        return Image.fromarray(self.image) if self.output_type == "pil" else self.image


def _finish(image: Tensor, prepared: _Prepared, output_type: OutputType) -> Any:
    """(3, H, W) in about [-1, 1] -> the output form."""
    canvas = _Canvas(prepared, image.shape[-2:], output_type)
    canvas.write(image[None])
    return canvas.finished()


def _mean(samples: Iterator[Iterator[Tensor]], shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """The mean of several samples, in bands."""
    mean = torch.zeros(shape)[None]  # (1, 3, H, W)
    for number, sample in enumerate(samples, start=1):
        top = 0
        for rows in sample:
            part = mean[..., top : top + rows.shape[-2], :]
            part += (rows.cpu() - part) / number
            top += rows.shape[-2]
    return iter(mean.split(256, dim=-2))


def _measured_consistency(image: Any, prepared: _Prepared, scale: int) -> float:
    """Of a finished image, in whichever form, with its input."""
    sr = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)  # (H, W) or (H, W, 3)
    lr = (prepared.lr[0].float() / 2 + 0.5).cpu().permute(1, 2, 0).numpy()  # (h, w, 3) in [0, 1]
    return consistency_db(sr, lr[..., 0] if sr.ndim == 2 else lr, scale)
