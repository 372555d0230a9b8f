"""ResShiftPipeline: low-resolution photographs in, reconstructions out. Device, dtype and seed are decided here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from retinashift.diffusion.noise import noise_window, stream_generator
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference import codec_tiles
from retinashift.inference.fidelity import REACH, back_project, consistency
from retinashift.inference.memory import free_for_tiles
from retinashift.inference.pictures import (
    Canvas,
    Mask,
    OutputType,
    Picture,
    Prepared,
    as_list,
    as_masks,
    masked,
    prepare,
)
from retinashift.inference.regions import Box, cut, grid_within, run_tiles
from retinashift.models.codec import PixelCodec, Upsampling, upsample_bicubic
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet, pad_to_multiple
from retinashift.models.vq import VQCodec

Denoiser = LightNet | SwinUNet
Report = Callable[[dict[str, Any]], None]
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
    """What came of each input.

    `images`: scale times its size, in the form that `output_type` names. `consistency`: PSNR in dB between the result,
    reduced again, and the input; see `fidelity.consistency`. `deviations`: the samples' standard deviation of each
    pixel, (H, W) float32 in [0, 1], or None where `ensemble_size` is 1; see `uncertainty`. `eyes`: the part of the
    input, in its pixels, that the network saw.
    """

    images: list[Any]
    consistency: list[float]
    deviations: list[np.ndarray | None]
    eyes: list[Box]


@dataclass(frozen=True)
class _Job:
    """One picture: what is known of it, what is to be done, and where it goes."""

    given: Prepared
    eye: Box
    margin: int
    tiles: list[Box]
    seed: int
    members: int
    back_projections: int
    canvas: Canvas
    deviation: np.ndarray | None
    report: Report | None
    where: dict[str, Any]


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
        only_eye: whether the dark surround is left out when the caller does not say; see `imaging.fundus.field_box`.

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
        only_eye: bool = False,
    ):
        super().__init__()
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling is {upsampling!r}; allowed are {', '.join(get_args(Upsampling))}")
        self.register_modules(denoiser=denoiser, scheduler=scheduler, codec=codec)
        self.register_to_config(
            scale=scale,
            upsampling=upsampling,
            default_steps=default_steps,
            back_projections=back_projections,
            only_eye=only_eye,
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
        only_eye: bool | None = None,
        memory: int | None = None,
        tile_size: int | None = None,
        callback: Report | None = None,
        mask: Mask | Sequence[Mask] | None = None,
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
            only_eye: give the network only the rectangle that holds the eye, and enlarge the dark surround bicubically.
                None is the checkpoint's default.
            memory: the most bytes that the process may hold at its peak (on a GPU: of the GPU); None is what it holds
                and half of what is free. A picture that needs more is computed by tiles, which changes nothing but
                the last bits (see `regions`). Only for denoisers that state a `receptive_radius`: group norms look
                at the whole picture.
            tile_size: side of the tiles, in input pixels, instead of what `memory` allows.
            callback: called after each step with {"image", "tile", "tiles", "member", "step", "steps", "x0", "x_t"};
                the two tensors are those of the tile.
            mask: for checkpoints that fill in (inpainting), one for each picture, (H, W): anything but 0 is filled in,
                and all else comes back as it was.

        Raises:
            ValueError: an argument outside what is allowed, named.
            MemoryError: `memory` is too small, or there is too little, even for the smallest tile.
        """
        # 1. Check
        images = as_list(image)
        if output_type not in ("np", "pil", "pt"):
            raise ValueError(f"output_type is {output_type!r}; allowed are np, pil, pt")
        if ensemble_size < 1:
            raise ValueError(f"ensemble_size is {ensemble_size}; it must be at least 1")
        if tile_size is not None and not (tile_size >= 1 and self._is_local):
            raise ValueError(f"tile_size is {tile_size}; at least 1, and only for LightNet, can be tiled")
        masks = as_masks(mask, images, takes_mask=getattr(self.denoiser, "takes_mask", False))
        seeds = _noise_seeds(generator, len(images))
        self.scheduler.set_timesteps(num_inference_steps or self.config.default_steps)
        times = self.config.back_projections if back_projections is None else back_projections
        only_eye = self.config.only_eye if only_eye is None else only_eye
        result = SRResult(images=[], consistency=[], deviations=[], eyes=[])
        # 2. Sample, image by image: sizes may differ, and activations of one image already fill a processor
        for number, (picture, hole, seed) in enumerate(zip(images, masks, seeds, strict=True)):
            given = masked(prepare(picture, self._execution_device, self.denoiser.dtype), hole)
            scale, frame = self.config.scale, given.frame
            eye = given.eye() if only_eye and hole is None else frame
            margin = self._margin(times)
            job = _Job(
                given=given,
                eye=eye,
                margin=margin,
                tiles=self._tiles(given, eye, margin, memory, tile_size),
                seed=seed,
                members=ensemble_size,
                back_projections=times,
                canvas=Canvas(given, scale, output_type),
                deviation=None if ensemble_size == 1 else np.zeros(frame.scaled(scale).shape, np.float32),
                report=callback,
                where={"image": number},
            )
            for side in eye.around(frame):
                job.canvas.put(side, self._enlarge(given, side))
            run_tiles(job.tiles, partial(self._paint, job), halve=self._is_local)
            result.images.append(job.canvas.finished())
            result.consistency.append(consistency(job.canvas.pixels, job.canvas.in_form(given.lr[0]), scale))
            result.deviations.append(job.deviation)
            result.eyes.append(eye)
        return result

    def _paint(self, job: _Job, tile: Box) -> None:
        """Compute one tile and put it where it belongs."""
        read = tile.widened(job.margin, job.eye)
        mean, deviation = self._reconstruct(job, tile, read)
        rows, columns = tile.inside(read).scaled(self.config.scale).slices
        job.canvas.put(tile, mean[:, rows, columns])
        if job.deviation is not None:
            job.deviation[tile.scaled(self.config.scale).slices] = deviation[rows, columns].cpu().numpy()

    def _reconstruct(self, job: _Job, tile: Box, read: Box) -> tuple[Tensor, Tensor]:
        """Mean (3, H, W) in about [-1, 1] and standard deviation (H, W) in units of [0, 1] of the samples of one tile.

        They are added up as they come (Welford, 1962), so that memory does not grow with their number.
        """
        prepared = job.given.window(read)
        given = self._whole_latents(prepared)  # prepared.lr, perhaps extended to the right and below
        y0 = self._encode(given.lr)  # (1, C, h', w')
        mean = squares = torch.zeros((), device=y0.device)
        where = job.where | {"tile": job.tiles.index(tile) if tile in job.tiles else -1, "tiles": len(job.tiles)}
        for member in range(job.members):
            report = None
            if job.report is not None:
                report = partial(_tell, job.report, where | {"member": member})
            x0 = self._sample(given, y0, read, stream_generator(job.seed, member).initial_seed(), report)
            sample = self._decode(x0, prepared.lr).float()  # (1, 3, H, W)
            sample = back_project(sample, prepared.lr.float(), self.config.scale, job.back_projections)
            if prepared.mask is not None:
                sample = torch.where(prepared.mask > 0, sample, prepared.lr.float())
            step = sample[0] - mean
            mean = mean + step / (member + 1)  # (3, H, W)
            squares = squares + step * (sample[0] - mean)  # (3, H, W)
        variance = squares.mean(0) / max(1, job.members - 1)  # (H, W)
        return mean, variance.sqrt() / 2

    def _sample(self, given: Prepared, y0: Tensor, box: Box, seed: int, report: Report | None) -> Tensor:
        """The chain from y0 to x0, both (1, C, h, w), of the part of the picture that `box` names."""
        height, width = y0.shape[-2:]
        rows, columns = range(box.top, box.top + height), range(box.left, box.left + width)

        def draw(number: int) -> Tensor:
            # drawn on the CPU in float32, so that the noise is the same on every device and in every dtype
            return noise_window(seed, number, y0.shape[1], rows, columns).to(y0)

        timesteps = self.scheduler.timesteps.tolist()
        x_t = self.scheduler.init_noise(y0, noise=draw(0))
        for number, t in enumerate(timesteps):
            scaled = self.scheduler.scale_model_input(x_t, t)
            prediction = _predict(self.denoiser, t, scaled, given.lr, given.mask)
            noise = draw(1 + number) if number < len(timesteps) - 1 else None  # the last step adds none
            x_t, x0 = self.scheduler.step(prediction, t, x_t, y0, noise=noise, return_dict=False)
            if report is not None:
                report({"step": number, "steps": len(timesteps), "x0": x0, "x_t": x_t})
        return x_t

    @property
    def _is_local(self) -> bool:
        """Whether a part of the picture can be computed by itself."""
        return self.codec is None and hasattr(self.denoiser, "receptive_radius")

    def _margin(self, back_projections: int) -> int:
        """How far beyond what it keeps a tile has to read, in pixels of the input."""
        if not self._is_local:
            return 0
        return self.scheduler.num_inference_steps * self.denoiser.receptive_radius + back_projections * REACH

    def _tiles(
        self, given: Prepared, eye: Box, margin: int, memory: int | None, tile_size: int | None
    ) -> list[Box]:
        """The parts in which a picture is computed: one, if it fits."""
        if not self._is_local:
            return [eye]
        if tile_size is not None:
            return cut(eye, -(-eye.height // tile_size), -(-eye.width // tile_size))
        free = free_for_tiles(self._execution_device, memory, Canvas.bytes_for(given, self.config.scale))
        largest = free // self.denoiser.bytes_per_position
        return cut(eye, *grid_within(eye.height, eye.width, margin, largest))

    def _enlarge(self, given: Prepared, box: Box) -> Tensor:
        """A part of the picture by interpolation alone, (3, h*scale, w*scale)."""
        scale, reach = self.config.scale, 3
        read = box.widened(reach, given.frame)
        enlarged = upsample_bicubic(given.window(read).lr, scale, self.config.upsampling)[0]  # (3, H, W)
        rows, columns = box.inside(read).scaled(scale).slices
        return enlarged[:, rows, columns]

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


def _tell(report: Report, where: dict[str, Any], state: dict[str, Any]) -> None:
    report(where | state)


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
