"""What the page's jobs do: bytes of photographs in, files and facts of their results out, all in memory."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinashift.web.jobs import Photo, Progress
from retinashift.web.settings import PageSettings

if TYPE_CHECKING:
    import numpy as np

    from retinashift.imaging.provenance import Provenance
    from retinashift.inference.pipeline import ResShiftPipeline
    from retinashift.web.api import UpscaleOptions

LEVELS_PER_GREY = 8
"""Maps are shown as 8-bit PNG with eight levels to a grey level of 255: up to 31.9."""
_FORBIDDEN = re.compile(r'[<>:"|?*]')
"""Characters that file names of some systems cannot have."""
CHAIN_SIDE = 128
"""Pixels of the input, a side, whose chain is drawn."""
MODES = {
    "faithful": "faithful: the estimate with the least squared error, smoother than a photograph",
    "realistic": "realistic: a sample as sharp as a photograph; its finest detail is plausible, not observed",
}
_FILES = {
    "json": "Record (JSON)",
    "tif": "Uncertainty (TIFF)",
    "png": "Uncertainty (PNG)",
    "dcm": "Uncertainty (DICOM)",
}


class Worker:
    """The checkpoints of a page, and the work on photographs with them. Called by one thread at a time."""

    def __init__(self, settings: PageSettings):
        self.settings = settings
        self.opened: dict[str, ResShiftPipeline] = {}
        self.loading = threading.Lock()

    def start(self) -> None:
        """Load torch and the default checkpoint behind the page."""
        threading.Thread(target=self._preload, name="preload", daemon=True).start()

    def _preload(self) -> None:
        try:
            self.pipeline("")
        except ValueError:  # the first job says it
            return

    def checkpoints(self) -> list[dict[str, Any]]:
        """Name, note, scale, modes and options of each checkpoint, the default one first; loads no torch."""
        return [_described(name, folder) for name, folder in self._folders().items()]

    def _folders(self) -> dict[str, Path]:
        weights = Path(str(files("retinashift"))) / "weights"
        bundled = {folder.name: folder for folder in sorted(weights.iterdir()) if folder.is_dir()}
        own = self.settings.checkpoint
        if own in bundled:
            return {own: bundled.pop(own), **bundled}
        if own:
            return {Path(own).name or own: Path(own), **bundled}
        return bundled  # x4 sorts first

    def pipeline(self, name: str) -> ResShiftPipeline:
        """The checkpoint of that name; "" is the default one. ValueError where there is none, or it cannot be used."""
        folders = self._folders()
        name = name or next(iter(folders))
        if name not in folders:
            raise ValueError(f"checkpoint is {name!r}; allowed are {', '.join(folders)}")
        with self.loading:
            if name not in self.opened:
                from retinashift.inference.checkpoints import open_checkpoint
                from retinashift.inference.memory import choose_device

                pipeline = open_checkpoint(str(folders[name]))
                pipeline.set_progress_bar_config(disable=True)
                self.opened[name] = pipeline.to(choose_device(self.settings.device))
            return self.opened[name]

    def upscale(
        self,
        uploads: list[tuple[str, bytes]],
        options: UpscaleOptions,
        reference: tuple[str, bytes] | None,
        progress: Progress,
    ) -> list[Photo]:
        """One result an upload; a photograph that fails does not stop the others.

        Args:
            uploads: names and bytes.
            reference: a photograph as large as the result, to be scored against; for one upload.

        Raises:
            ValueError: the checkpoint cannot be used. Cancelled: as `progress` raises it.
        """
        progress(0.0, "loading the checkpoint")
        pipeline = self.pipeline(options.checkpoint)
        photos = []
        for number, (name, data) in enumerate(uploads):
            place = f"photograph {number + 1} of {len(uploads)}, {name}" if len(uploads) > 1 else name

            def tell(share: float, number: int = number, place: str = place) -> None:
                progress((number + share) / len(uploads), f"{place}: {share:.0%}")

            try:
                photos.append(_upscaled(pipeline, name, data, options, reference, self.settings.max_pixels, tell))
            except (ValueError, OSError, MemoryError) as error:
                photos.append(Photo(name, error=" ".join(str(error).split()) or type(error).__name__))
        return photos

    def chain(self, name: str, data: bytes, checkpoint: str, seed: int) -> Photo:
        """The frames of `draw_chain` for the middle of a photograph, as PNG under their names."""
        from retinashift.imaging.files import decode_image
        from retinashift.web.chain import draw_chain

        pipeline = self.pipeline(checkpoint)
        pixels = _shown(decode_image(data, name, self.settings.max_pixels).pixels)
        top, left = (max(0, (side - CHAIN_SIDE) // 2) for side in pixels.shape[:2])
        frames = draw_chain(pipeline, pixels[top : top + CHAIN_SIDE, left : left + CHAIN_SIDE], seed)
        settings = pipeline.scheduler.config
        note = f"{name}, the middle, the whole chain, seed {seed}, kappa {settings.kappa:g}, p {settings.power:g}"
        return Photo(name, facts={"note": note}, files={frame.name: _png(frame.pixels) for frame in frames})

    def sample(self) -> dict[str, bytes]:
        """The sample photograph and its original."""
        return sample_pictures()


def _described(name: str, folder: Path) -> dict[str, Any]:
    """What the page shows of a checkpoint, from its configuration and its model card."""
    config = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    distilled = bool(config.get("distilled"))
    modes = ["realistic"] if distilled else list(MODES)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    note = re.search(r"^# .*\n\n(.*?)\s*\*\*For research", text, re.MULTILINE | re.DOTALL)
    options = ["seed", "consistency", "format", "reference", *([] if distilled else ["uncertainty"])]
    return {
        "name": name, "scale": config.get("scale", 4), "note": " ".join(note[1].split()) if note else "",
        "modes": [{"name": mode, "text": MODES[mode]} for mode in modes], "options": options,
    }  # fmt: skip


def _upscaled(
    pipeline: ResShiftPipeline, name: str, data: bytes, options: UpscaleOptions,
    reference: tuple[str, bytes] | None, max_pixels: int, tell: Callable[[float], None],
) -> Photo:  # fmt: skip
    """One photograph: the files that the command would write, the viewer's layers, and what is known of the result."""
    from retinashift.batch.jobs import result_name
    from retinashift.batch.photograph import ResultOptions, upscale_bytes
    from retinashift.imaging.files import decode_image
    from retinashift.imaging.formats.table import HEAD, format_of_bytes
    from retinashift.inference.settings import Sampling

    began = time.perf_counter()
    sampling = Sampling.of_samples(
        mode=None if options.uncertainty else options.mode, uncertainty=options.uncertainty,
        num_inference_steps=options.steps or None, back_projections=None if options.consistency else 0,
    )  # fmt: skip
    safe = Path(_FORBIDDEN.sub("_", name))
    named = result_name(safe, options.format, lambda: format_of_bytes(data[:HEAD]).suffixes[0])
    target = named.with_name(f"{named.stem}_x{sampling.scale or pipeline.config.scale:g}{named.suffix}")
    chosen = ResultOptions(sampling=sampling, seed=options.seed, max_pixels=max_pixels, sidecar=True)
    made = upscale_bytes(pipeline, data, name, target, chosen, lambda share: tell(0.95 * share))
    tell(0.95)
    files = {path.name: encoded for path, encoded in made.files()}
    source, record = made.source.photograph, made.record
    layers = _layers(source.pixels, made.pixels, made.sigma)
    facts = [
        ("sizes", f"{_size(source.pixels)} to {_size(made.pixels)}"),
        ("seconds", f"{time.perf_counter() - began:.1f}"),
        ("consistency", ("exact" if record.consistency_db is None else f"{record.consistency_db} dB")
         + ": the result reduced again, against the input"),
        *([("self-check", record.returned())] if record.bicubic_share else []),
        *(_scores(layers, decode_image(reference[1], reference[0]).pixels) if reference else []),
        ("provenance", _account(record)),
        *([("mind", "the input is a result of super-resolution itself")] if record.input_was_super_resolved else []),
    ]  # fmt: skip
    order = [target.name, *(file for file in files if file != target.name)]
    labels = [{"name": file, "text": "Download image" if file == target.name else _FILES[file.rpartition(".")[2]]}
              for file in order]  # fmt: skip
    height, width = made.pixels.shape[:2]
    return Photo(
        name,
        facts={"saved": target.name, "size": [width, height], "layers": list(layers), "facts": facts, "files": labels,
               "meaning": f"standard deviation, {made.meaning}" if made.sigma is not None else ""},
        files={**files, **{f"{layer}.png": _png(pixels) for layer, pixels in layers.items()}},
    )  # fmt: skip


def _account(record: Provenance) -> str:
    """The record in one line for people."""
    drawn = f"mean of {record.ensemble} samples of " if record.ensemble > 1 else ""
    noise = "no noise" if record.seed is None else f"seed {record.seed}"
    return (
        f"RetinaShift {record.versions['retinashift']}, checkpoint {record.checkpoint[:12]}, {drawn}{record.steps} "
        f"step{'s' if record.steps > 1 else ''}, {noise}, back-projections {record.back_projections}, "
        f"{record.device}"
    )


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}, {pixels.dtype.itemsize * 8} bit"


def _layers(lr: np.ndarray, sr: np.ndarray, sigma: np.ndarray | None) -> dict[str, np.ndarray]:
    """The layers of the viewer as 8-bit pictures, (H, W, 3) or, for the map, (H, W)."""
    import numpy as np

    from retinashift.imaging.degradation.bicubic import resize

    small = _shown(lr)
    layers = {"input": small, "bicubic": resize(small, (sr.shape[0], sr.shape[1]), "bicubic"), "result": _shown(sr)}
    if sigma is not None:
        layers["uncertainty"] = np.rint(sigma * 255 * LEVELS_PER_GREY).clip(0, 255).astype(np.uint8)
    return layers


def _scores(layers: dict[str, np.ndarray], hr: np.ndarray) -> list[tuple[str, str]]:
    """PSNR and SSIM of bicubic and result against a reference, at 8 bit in the field of view; adds its layer."""
    from retinashift.evaluation.similarity import psnr_rgb, ssim_y
    from retinashift.imaging.fundus import field_of_view

    hr, result = _shown(hr), layers["result"]
    if hr.shape != result.shape:
        sizes = (f"{picture.shape[1]} x {picture.shape[0]}" for picture in (hr, result))
        return [("reference", "it is {} and the result {}; a reference is not resized".format(*sizes))]
    layers["reference"], eye = hr, field_of_view(hr)
    return [
        (label, f"PSNR {psnr_rgb(layers[layer], hr, eye):.2f} dB (RGB), "
         f"SSIM {ssim_y(layers[layer], hr, eye):.4f} (luma); field of view, 8 bit")
        for label, layer in (("bicubic", "bicubic"), ("RetinaShift", "result"))
    ]  # fmt: skip


def _shown(pixels: np.ndarray) -> np.ndarray:
    """8-bit RGB (H, W, 3) for a screen: 16 bit rounded, alpha left out, grey in three channels."""
    import numpy as np

    pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@cache
def sample_pictures() -> dict[str, bytes]:
    """The CC0 retina of scikit-image, reduced four times, and what it was reduced from, as PNG."""
    import numpy as np
    import skimage.data
    from PIL import Image

    from retinashift.imaging.degradation.bicubic import bicubic_pillow

    hr = np.asarray(Image.fromarray(skimage.data.retina()).resize((704, 704), Image.Resampling.LANCZOS))
    return {"sample.png": _png(bicubic_pillow(hr, 4)), "original.png": _png(hr)}
