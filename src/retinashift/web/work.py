"""What the page's jobs do: bytes of photographs in, files and facts of their results out, all in memory."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinashift.web.jobs import Photo, Progress
from retinashift.web.settings import PageSettings, UpscaleOptions

if TYPE_CHECKING:
    import numpy as np

    from retinashift.inference.pipeline import ResShiftPipeline

LEVELS_PER_GREY = 8
"""Maps are shown as 8-bit PNG with eight levels to a grey level of 255: up to 31.9."""
CHAIN_SIDE = 128
"""Pixels of the input, a side, whose chain is drawn."""
Upload = tuple[str, bytes]
"""Name and content of a file."""
Tell = Callable[[float], None]
"""Takes the share of the work on one photograph that is done, 0..1."""

BUNDLED = Path(str(files("retinashift") / "weights"))


class Worker:
    """The checkpoints of a page, and the work on photographs with them. The queue's thread alone has it compute."""

    def __init__(self, settings: PageSettings):
        self.settings, self.opened = settings, dict[str, "ResShiftPipeline"]()
        bundled = {folder.name: folder for folder in sorted(BUNDLED.iterdir())}
        own = settings.checkpoint  # goes first; then x4, which sorts first
        first = {Path(own).name or own: bundled.get(own, Path(own))} if own else {}
        self.folders = {**first, **{name: folder for name, folder in bundled.items() if name not in first}}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Name, note, scale, modes and options of each checkpoint, the default one first; loads no torch."""
        return [_described(name, folder) for name, folder in self.folders.items()]

    def pipeline(self, name: str = "") -> ResShiftPipeline:
        """The checkpoint of that name; "" is the default one. ValueError where there is none, or it cannot be used."""
        from retinashift.inference.checkpoints import open_checkpoint
        from retinashift.inference.memory import choose_device

        name = name or next(iter(self.folders))
        if name not in self.folders:
            raise ValueError(f"checkpoint is {name!r}; allowed are {', '.join(self.folders)}")
        if name not in self.opened:
            pipeline = open_checkpoint(str(self.folders[name]))
            pipeline.to(choose_device(self.settings.device))
            pipeline.set_progress_bar_config(disable=True)
            self.opened[name] = pipeline
        return self.opened[name]

    def upscale(
        self, uploads: list[Upload], options: UpscaleOptions, truth: list[Upload], progress: Progress
    ) -> list[Photo]:
        """One result an upload; a photograph that fails does not stop the others.

        Args:
            truth: nothing, or a photograph as large as the result, to be scored against; for one upload.

        Raises:
            ValueError: the checkpoint cannot be used. Cancelled: as `progress` raises it.
        """
        progress(0.0, "loading the checkpoint")
        pipeline, photos = self.pipeline(options.checkpoint), []
        for number, upload in enumerate(uploads):
            place = f"photograph {number + 1} of {len(uploads)}, {upload[0]}" if len(uploads) > 1 else upload[0]

            def tell(share: float, number: int = number, place: str = place) -> None:
                progress((number + share) / len(uploads), f"{place}: {share:.0%}")

            try:
                make = self._chain if options.chain else self._result
                photos.append(make(pipeline, upload, options, truth, tell))
            except (ValueError, OSError, MemoryError) as error:
                photos.append(Photo(upload[0], error=" ".join(str(error).split()) or type(error).__name__))
        return photos

    def _result(
        self, pipeline: ResShiftPipeline, upload: Upload, options: UpscaleOptions, truth: list[Upload], tell: Tell
    ) -> Photo:
        """The files that the command would write, the viewer's layers, and what is known of the result."""
        import numpy as np

        from retinashift.batch.jobs import BatchOptions, result_name
        from retinashift.batch.photograph import upscale_bytes
        from retinashift.imaging.degradation.bicubic import resize
        from retinashift.imaging.figures.comparison import shown
        from retinashift.imaging.files import decode_image
        from retinashift.imaging.formats.table import HEAD, format_of_bytes

        (name, data), most, began = upload, self.settings.max_pixels, time.perf_counter()
        safe = Path(re.sub(r'[<>:"|?*]', "_", name))  # some systems do not allow these in names
        named = result_name(safe, options.format, lambda: format_of_bytes(data[:HEAD]).suffixes[0])
        sampling = options.sampling()
        factor = f"x{sampling.scale or pipeline.config.scale:g}"
        size = f"{sampling.longest_side}px" if sampling.longest_side else factor
        target = named.with_name(f"{named.stem}_{size}{named.suffix}")
        chosen = BatchOptions(sampling=sampling, seed=options.seed, max_pixels=most, sidecar=True)
        made = upscale_bytes(pipeline, data, name, target, chosen, lambda share: tell(0.95 * share))
        encoded = {path.name: encoded for path, encoded in made.files()}
        source, result, record = shown(made.source.photograph.pixels), shown(made.pixels), made.record
        layers = {"input": source, "bicubic": resize(source, result.shape[:2], "bicubic"), "result": result}
        if made.sigma is not None:
            layers["uncertainty"] = np.rint(made.sigma * 255 * LEVELS_PER_GREY).clip(0, 255).astype(np.uint8)
        scores = {}
        for reference, content in truth:
            scores = _scores(layers, shown(decode_image(content, reference, most * pipeline.config.scale**2).pixels))
        facts = {
            "saved": target.name, "layers": [*layers], "files": sorted(encoded, key=lambda name: name != target.name),
            "sizes": [picture.shape[1::-1] for picture in (source, result)], "bits": 8 * made.pixels.dtype.itemsize,
            "seconds": time.perf_counter() - began, "record": asdict(record), "returned": record.returned(),
            "scores": scores, "meaning": f"standard deviation, {made.meaning}" if made.sigma is not None else "",
        }  # fmt: skip
        return Photo(name, "", facts, encoded | {f"{layer}.png": _png(drawn) for layer, drawn in layers.items()})

    def _chain(
        self, pipeline: ResShiftPipeline, upload: Upload, options: UpscaleOptions, truth: list[Upload], tell: Tell
    ) -> Photo:
        """x_T, y0, then after each step the estimate of x0 that it was made from, and the state; the last one is x0.

        Of the photograph's middle, by all T steps without back-projection: what the method itself does.
        """
        import torch

        from retinashift.diffusion.noise import noise_seeds, normal_rows
        from retinashift.imaging.degradation.bicubic import enlarge
        from retinashift.imaging.figures.comparison import shown
        from retinashift.imaging.files import decode_image
        from retinashift.models.swin_unet import pad_to_multiple

        scheduler, codec, last = pipeline.scheduler, pipeline.image_codec, len(pipeline.scheduler)
        pixels = shown(decode_image(upload[1], upload[0], self.settings.max_pixels).pixels)
        top, left = (max(0, (side - CHAIN_SIDE) // 2) for side in pixels.shape[:2])
        lr, steps = pixels[top : top + CHAIN_SIDE, left : left + CHAIN_SIDE], list[dict[str, torch.Tensor]]()
        bicubic = enlarge(lr, pipeline.config.scale, "bicubic")

        def picture(x: torch.Tensor) -> np.ndarray:
            image = codec.decode(x)[0, :, : bicubic.shape[0], : bicubic.shape[1]].float()
            return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

        def keep(pipeline: ResShiftPipeline, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> None:
            steps.append(tensors)

        with torch.inference_mode():
            y0 = torch.from_numpy(bicubic).permute(2, 0, 1)[None].to(pipeline.device, pipeline.denoiser.dtype)
            y0 = codec.encode(pad_to_multiple(y0 / 127.5 - 1, codec.multiple))
            [seed] = noise_seeds(torch.Generator().manual_seed(options.seed), 1)
            noise = normal_rows(seed, (0, 0), 0, y0.shape[2], y0.shape[1], y0.shape[3]).to(y0)
            seeded = torch.Generator().manual_seed(options.seed)
            pipeline(
                lr, last, seeded, back_projections=0, progress=tell,
                callback_on_step_end=keep, callback_on_step_end_tensor_inputs=("latents", "x0"),
            )  # fmt: skip
            start = picture(scheduler.init_noise(y0, noise=noise))
            frames = {f"x{last}, the noisy start": start, "y0, enlarged bicubically": bicubic}
            for t, step in zip(range(last - 1, -1, -1), steps, strict=True):
                frames |= {f"estimate of x0 at step {t + 1}": picture(step["x0"])} if t else {}
                frames[f"x{t}" if t else "x0, the result"] = picture(step["latents"])
        drawn = {f"chain_{number}.png": _png(frame) for number, frame in enumerate(frames.values())}
        note = f"the middle, seed {options.seed}, kappa {scheduler.config.kappa:g}, p {scheduler.config.power:g}"
        facts = {"saved": [*drawn][-1], "files": [*drawn], "labels": [*frames], "note": note}
        return Photo(upload[0], "", facts, drawn)


def _described(name: str, folder: Path) -> dict[str, Any]:
    """What the page shows of a checkpoint, from its configuration and its model card."""
    index, card = (folder / name for name in ("model_index.json", "README.md"))
    config = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}  # an adapter has none
    distilled = bool(config.get("distilled"))
    mapped = ["uncertainty"] if any(config.get("uncertainty_head") or ()) else []
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    note = re.search(r"^# .*\n\n(.*?)\s*\*\*For research", text, re.MULTILINE | re.DOTALL)
    return {
        "name": name, "scale": config.get("scale", 4), "note": " ".join(note[1].split()) if note else "",
        "modes": ["realistic"] if distilled else ["faithful", "realistic"],
        "options": ["seed", "consistency", "scale", "turns", "format", "reference", *mapped],
    }  # fmt: skip


def _scores(layers: dict[str, np.ndarray], hr: np.ndarray) -> dict[str, str]:
    """PSNR and SSIM of bicubic and result against a reference, at 8 bit in the field of view; adds its layer."""
    from retinashift.evaluation.similarity import psnr_rgb, ssim_y
    from retinashift.imaging.fundus import field_of_view

    if hr.shape != layers["result"].shape:
        sizes = (f"{width} x {height}" for height, width, _ in (hr.shape, layers["result"].shape))
        return {"reference": "it is {} and the result {}; a reference is not resized".format(*sizes)}
    layers["reference"], eye = hr, field_of_view(hr)
    return {
        layer: f"PSNR {psnr_rgb(layers[layer], hr, eye):.2f} dB (RGB), SSIM {ssim_y(layers[layer], hr, eye):.4f} "
        "(luma); field of view, 8 bit"
        for layer in ("bicubic", "result")
    }


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
