"""One job of the page: photographs through the very code of `retinashift upscale`, with progress and cancelling."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retinashift import __version__
from retinashift.app.model import Model
from retinashift.app.views import write_views
from retinashift.imaging.degradation import bicubic_pillow
from retinashift.imaging.files import read_image

FileFormat = Literal["same", "png", "tiff"]
Report = Callable[[float, str], None]
MAX_SAMPLES = 64


class Cancelled(Exception):
    """The person at the page has had enough."""


@dataclass(frozen=True)
class JobSettings:
    """What the person chose. ValueError for a value outside its range."""

    steps: int = 1
    seed: int = 0
    consistency: bool = True
    samples: int = 0
    """Samples of the uncertainty map; 0 makes none."""
    file_format: FileFormat = "same"

    def __post_init__(self) -> None:
        for name, lowest, highest in (("steps", 1, 1000), ("seed", 0, 2**63 - 1), ("samples", 0, MAX_SAMPLES)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise ValueError(f"{name} is {value!r}; a whole number from {lowest} to {highest} is needed")
        if self.samples == 1:
            raise ValueError("samples is 1; the spread of samples needs at least 2, or 0 for none")
        if not isinstance(self.consistency, bool):
            raise ValueError(f"consistency is {self.consistency!r}; true or false is needed")
        if self.file_format not in ("same", "png", "tiff"):
            raise ValueError(f"file_format is {self.file_format!r}; same, png or tiff is needed")


class _Watched:
    """The pipeline as `upscale_files` calls it, reporting each step and stopping when it is to."""

    def __init__(self, pipeline: Any, watch: Callable[[dict[str, Any]], None]):
        self._pipeline, self._watch = pipeline, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._pipeline(*args, callback=self._watch, **kwargs)


def run_job(
    model: Model,
    uploads: list[Path],
    settings: JobSettings,
    folder: Path,
    report: Report,
    cancelled: threading.Event,
    reference: Path | None = None,
) -> list[dict[str, Any]]:
    """Enlarge each upload into a sub-folder of `folder`; a photograph that fails does not stop the others.

    Returns:
        One manifest a photograph, in their order: what the viewer shows, or {"name", "error"}.

    Raises:
        Cancelled: `cancelled` was set. ValueError: settings that the checkpoint does not allow, or too many jobs.
    """
    ticket = model.join()
    with model.turn(ticket, cancelled):
        _stop_if(cancelled)
        report(0.0, model.status if not model.loaded else "starting")
        pipeline = model.pipeline()
        trained = pipeline.scheduler.config.num_train_timesteps
        if settings.steps > trained:
            raise ValueError(
                f"steps is {settings.steps}; this checkpoint was trained with {trained}, so 1 to {trained}"
            )
        handle = pipeline.denoiser.register_forward_pre_hook(lambda *_: _stop_if(cancelled))
        try:
            manifests = []
            for number, upload in enumerate(uploads):
                span = partial(_share, report, number, len(uploads))
                manifests.append(_photograph(pipeline, model, upload, number, settings, folder, span, reference))
            return manifests
        finally:
            handle.remove()


def _share(report: Report, number: int, total: int, done: float, text: str) -> None:
    """Report the progress of one of several photographs as that of all."""
    report((number + done) / total, text)


def _photograph(
    pipeline: Any,
    model: Model,
    upload: Path,
    number: int,
    settings: JobSettings,
    folder: Path,
    report: Report,
    reference: Path | None,
) -> dict[str, Any]:
    from retinashift.inference.batch import BatchOptions, upscale_files
    from retinashift.inference.jobs import plan_jobs

    name = safe_name(upload.name)
    calls = settings.steps * 1 + settings.samples * pipeline.scheduler.config.num_train_timesteps
    done = 0

    def watch(state: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        report(0.95 * done / calls, f"{name}: step {done} of {calls}")

    started = time.perf_counter()
    try:
        (job,) = plan_jobs([upload], folder / str(number) / "out", file_format=settings.file_format)
        report(0.0, f"{name}: reading")
        (outcome,) = upscale_files(
            _Watched(pipeline, watch),  # type: ignore[arg-type]  # it is the pipeline, and watches it
            [job],
            BatchOptions(
                steps=settings.steps, seed=settings.seed, back_projections=None if settings.consistency else 0
            ),
        )
        if outcome.error:
            return {"name": name, "error": outcome.error.replace(str(upload), name)}
        seconds = time.perf_counter() - started
        source, result = read_image(upload), read_image(job.target)
        spread = None
        if settings.samples:
            from retinashift.app.spread import sample_spread

            spread = sample_spread(pipeline, source, settings.samples, settings.seed, watch)
        report(0.96, f"{name}: drawing")
        scale = pipeline.config.scale
        figures: dict[str, Any] = {
            "input": f"{source.pixels.shape[1]} x {source.pixels.shape[0]}, {source.pixels.dtype.itemsize * 8} bit",
            "output": f"{result.pixels.shape[1]} x {result.pixels.shape[0]}, {result.pixels.dtype.itemsize * 8} bit",
            "seconds": round(seconds, 2),
            "consistency_db": consistency_db(source.pixels, result.pixels, scale),
        }
        saved = f"{Path(name).stem}_x{scale}{job.target.suffix}"
        account = {
            "note": "Super-resolved: detail finer than the input's pixels is estimated, not observed.",
            "source": {"name": name, "sha256": hashlib.sha256(upload.read_bytes()).hexdigest()},
            "result": {"name": saved, "sha256": hashlib.sha256(job.target.read_bytes()).hexdigest()},
            "scale": scale,
            "settings": asdict(settings),
            "figures": figures,
            "checkpoint_sha256": model.digest,
            "retinashift": __version__,
        }
        job.target.rename(folder / str(number) / saved)
        (folder / str(number) / f"{saved}.json").write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
        views = write_views(folder / str(number), source.pixels, result.pixels, scale, spread, reference)
        return {"name": name, "saved": saved, "number": number, "account": account, "scale": scale, **views}
    except (ValueError, OSError, MemoryError) as error:
        return {"name": name, "error": " ".join(str(error).split()).replace(str(upload), name)}


def consistency_db(lr: np.ndarray, sr: np.ndarray, scale: int) -> float | None:
    """PSNR in dB between the input and the result reduced by `bicubic_pillow`; None if they are equal."""
    reduced = bicubic_pillow(sr, scale).astype(np.float64)
    error = float(np.mean((reduced - lr) ** 2))
    return None if error == 0 else round(10 * math.log10(float(np.iinfo(lr.dtype).max) ** 2 / error), 2)


def safe_name(name: str) -> str:
    """A file name of letters, digits, dots and dashes, at most 80 characters.

    >>> safe_name("<img src=x onerror=alert(1)>.png"), safe_name("../../etc/passwd")
    ('img_src_x_onerror_alert_1_.png', 'passwd')
    """
    base = Path(name.replace("\\", "/")).name
    return re.sub(r"[^A-Za-z0-9.-]+", "_", base).strip("_").lstrip(".")[-80:] or "photograph"


def _stop_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled
