"""What the page's jobs do: bytes of photographs in, files and facts of their results out, all in memory.

It loads torch, which the page therefore imports in the thread of its jobs.
"""

import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from imagecodecs import png_encode

from retinashift.batch.jobs import BatchOptions, result_name
from retinashift.batch.upscale import MEANING, upscale_bytes
from retinashift.diffusion.sampling import noise_seeds, normal_rows
from retinashift.evaluation.similarity import psnr_rgb, ssim_y
from retinashift.imaging.degradation.bicubic import enlarge, resize
from retinashift.imaging.figures import shown
from retinashift.imaging.files import decode_image
from retinashift.imaging.formats.table import HEAD, format_of_bytes
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.memory import choose_device
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint
from retinashift.models.swin_unet import pad_to_multiple
from retinashift.web.jobs import Progress, Result
from retinashift.web.settings import PageSettings, Upload, UpscaleOptions

LEVELS_PER_GREY = 8  # of maps, which are shown as 8-bit PNG: up to 31.9 grey levels of 255
CHAIN_SIDE = 128  # pixels of the input, a side, whose chain is drawn


@cache
def opened(folder: str, device: str) -> ResShiftPipeline:
    """The checkpoint in a folder. CheckpointError where it cannot be used."""
    return open_checkpoint(folder).to(choose_device(device))


def upscale(
    settings: PageSettings, upload: Upload, options: UpscaleOptions, truth: Upload | None, progress: Progress
) -> Result:
    """The files that the command would write, the viewer's layers, and what is known of the result.

    `truth` is a photograph as large as the result, to be scored against. ValueError, OSError or MemoryError where the
    photograph or the checkpoint cannot be used; and what `progress` raises.
    """
    pipeline, (name, data) = opened(settings.folder(options.checkpoint), settings.device), upload
    began, most = time.perf_counter(), settings.max_pixels
    if options.chain:
        return _chain(pipeline, shown(decode_image(data, name, most).pixels), options.seed, progress)
    named = Path(result_name(name, options.format, lambda: format_of_bytes(data[:HEAD]).suffixes[0]))
    sampling = options.sampling()
    factor, side = f"x{sampling.scale or pipeline.config.scale:g}", sampling.longest_side
    target = named.with_name(f"{named.stem}_{f'{side}px' if side else factor}{named.suffix}")
    chosen = BatchOptions(sampling=sampling, seed=options.seed, max_pixels=most, sidecar=True)
    made = upscale_bytes(pipeline, data, name, target, chosen, progress)
    encoded = {path.name: encoded for path, encoded in made.files()}
    source, result = shown(made.photograph.pixels), shown(made.pixels)
    layers = {"input": source, "bicubic": resize(source, result.shape[:2], "bicubic"), "result": result}
    if made.sigma is not None:
        layers["uncertainty"] = np.rint(made.sigma * 255 * LEVELS_PER_GREY).clip(0, 255).astype(np.uint8)
    scores = _scores(layers, truth, most * pipeline.config.scale**2) if truth else {}
    facts = {
        "saved": target.name, "layers": [*layers], "files": sorted(encoded, key=lambda name: name != target.name),
        "sizes": [picture.shape[1::-1] for picture in (source, result)], "bits": 8 * made.pixels.dtype.itemsize,
        "seconds": time.perf_counter() - began, "record": asdict(made.record), "returned": made.record.returned(),
        "scores": scores, "meaning": f"standard deviation, {MEANING}" if made.sigma is not None else "",
    }  # fmt: skip
    return facts, encoded | {f"{layer}.png": _png(pixels) for layer, pixels in layers.items()}


def _chain(pipeline: ResShiftPipeline, pixels: np.ndarray, seed: int, progress: Progress) -> Result:
    """x_T, y0, and each step's estimate of x0 and state, of the middle, by all T steps without back-projection."""
    scheduler, codec, last = pipeline.scheduler, pipeline.image_codec, len(pipeline.scheduler)
    top, left = (max(0, (side - CHAIN_SIDE) // 2) for side in pixels.shape[:2])
    lr, steps = pixels[top : top + CHAIN_SIDE, left : left + CHAIN_SIDE], list[dict[str, torch.Tensor]]()
    bicubic = enlarge(lr, pipeline.config.scale, "bicubic")

    def picture(x: torch.Tensor) -> np.ndarray:
        image = codec.decode(x)[0, :, : bicubic.shape[0], : bicubic.shape[1]].float()
        return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    with torch.inference_mode():
        y0 = torch.from_numpy(bicubic).permute(2, 0, 1)[None].to(pipeline.device, pipeline.denoiser.dtype)
        y0 = codec.encode(pad_to_multiple(y0 / 127.5 - 1, codec.multiple))
        [drawn_with] = noise_seeds(torch.Generator().manual_seed(seed), 1)
        noise = normal_rows(drawn_with, (0, 0), 0, y0.shape[2], y0.shape[1], y0.shape[3]).to(y0)
        pipeline(
            lr, last, torch.Generator().manual_seed(seed), back_projections=0, progress=progress,
            callback_on_step_end=lambda *told: steps.append(told[-1]),
            callback_on_step_end_tensor_inputs=("latents", "x0"),
        )  # fmt: skip
        frames = {f"x{last}, the noisy start": picture(scheduler.init_noise(y0, noise=noise))}
        frames["y0, enlarged bicubically"] = bicubic
        for t, step in zip(range(last - 1, -1, -1), steps, strict=True):
            frames |= {f"estimate of x0 at step {t + 1}": picture(step["x0"])} if t else {}
            frames[f"x{t}" if t else "x0, the result"] = picture(step["latents"])
    drawn = {f"chain_{number}.png": _png(frame) for number, frame in enumerate(frames.values())}
    note = f"the middle, seed {seed}, kappa {scheduler.config.kappa:g}, p {scheduler.config.power:g}"
    return {"saved": [*drawn][-1], "files": [*drawn], "labels": [*frames], "note": note}, drawn


def _scores(layers: dict[str, np.ndarray], truth: Upload, most: int) -> dict[str, str]:
    """PSNR and SSIM of bicubic and result against a reference, at 8 bit in the field of view; adds its layer."""
    hr = shown(decode_image(truth[1], truth[0], most).pixels)
    if hr.shape != (expected := layers["result"].shape):
        sizes = f"{hr.shape[1]} x {hr.shape[0]} and the result {expected[1]} x {expected[0]}"
        return {"reference": f"it is {sizes}; a reference is not resized"}
    layers["reference"], eye, scores = hr, field_of_view(hr), dict[str, str]()
    for layer in ("bicubic", "result"):
        psnr, ssim = psnr_rgb(layers[layer], hr, eye), ssim_y(layers[layer], hr, eye)
        scores[layer] = f"PSNR {psnr:.2f} dB (RGB), SSIM {ssim:.4f} (luma); field of view, 8 bit"
    return scores


def _png(pixels: np.ndarray) -> bytes:
    return bytes(png_encode(np.ascontiguousarray(pixels), level=1))
