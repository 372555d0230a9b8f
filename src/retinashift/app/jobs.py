"""One job of the page: photographs through the very code of `retinashift upscale`, with progress and cancelling."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from retinashift.app.model import Model
from retinashift.app.views import write_views
from retinashift.imaging.files import read_image
from retinashift.imaging.photograph import Photograph

FileFormat = Literal["same", "png", "tiff"]
Report = Callable[[float, str], None]
MAX_SAMPLES = 64


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
    """The pipeline as `upscale_files` calls it, telling the share of its work that is done."""

    def __init__(self, pipeline: Any, progress: Callable[[float], None]):
        self._pipeline, self._progress = pipeline, progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._pipeline(*args, progress=self._progress, **kwargs)


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

    Args:
        report: told the share of the job that is done, 0..1, and what is being done.

    Returns:
        One manifest a photograph, in their order: what the viewer shows, or {"name", "error"}.

    Raises:
        Cancelled: `cancelled` was set, or the page ends.
        ValueError: settings that the checkpoint does not allow, a reference for several photographs, too many jobs.
    """
    if reference is not None and len(uploads) > 1:
        raise ValueError(f"one reference was given for {len(uploads)} photographs; enlarge its own alone")
    with model.turn(model.join(), cancelled, partial(report, 0.0)):
        pipeline = model.pipeline()
        trained = pipeline.scheduler.config.num_train_timesteps
        if settings.steps > trained:
            raise ValueError(
                f"steps is {settings.steps}; this checkpoint was trained with {trained}, so 1 to {trained}"
            )
        manifests = []
        for number, upload in enumerate(uploads):
            place = f"photograph {number + 1} of {len(uploads)}, " if len(uploads) > 1 else ""

            def tell(share: float, text: str, number: int = number, place: str = place) -> None:
                model.stop_if(cancelled)
                report((number + share) / len(uploads), f"{place}{text}")

            manifests.append(_photograph(pipeline, upload, number, settings, folder, tell, reference))
        return manifests


def _photograph(
    pipeline: Any,
    upload: Path,
    number: int,
    settings: JobSettings,
    folder: Path,
    report: Report,
    reference: Path | None,
) -> dict[str, Any]:
    from retinashift.inference.batch import BatchOptions, upscale_files
    from retinashift.inference.jobs import Job, plan_jobs

    name, scale = safe_name(upload.name), pipeline.config.scale
    per_sample = pipeline.scheduler.config.num_train_timesteps
    enlarging = 0.95 * settings.steps / (settings.steps + settings.samples * per_sample)  # its share of the work
    started = time.perf_counter()
    try:
        report(0.0, f"{name}: reading")
        (planned,) = plan_jobs([upload], folder / "never", file_format=settings.file_format)
        job = Job(upload, folder / str(number) / f"{Path(name).stem}_x{scale}{planned.target.suffix}")
        steps = f"{settings.steps} step{'s' if settings.steps > 1 else ''}"

        def bands(share: float) -> None:
            report(enlarging * share, f"{name}: {steps}, {share:.0%}")

        (outcome,) = upscale_files(
            _Watched(pipeline, bands),  # type: ignore[arg-type]  # it is the pipeline, and watches it
            [job],
            BatchOptions(
                steps=settings.steps,
                seed=settings.seed,
                back_projections=None if settings.consistency else 0,
                sidecar=True,
            ),
        )
        if outcome.error or outcome.record is None:
            return {"name": name, "error": outcome.error.replace(str(upload), name)}
        seconds = time.perf_counter() - started
        source, result = read_image(upload), read_image(job.target)
        spread = None
        if settings.samples:
            spread = _spread(pipeline, source, settings, lambda s, t: report(enlarging + (0.95 - enlarging) * s, t))
        report(0.95, f"{name}: drawing")
        views = write_views(folder / str(number), source.pixels, result.pixels, scale, spread, reference)
        return {
            "name": name,
            "saved": job.target.name,
            "number": number,
            "scale": scale,
            "seconds": round(seconds, 2),
            "input": _size(source),
            "output": _size(result),
            "provenance": asdict(outcome.record),
            **views,
        }
    except (ValueError, OSError, MemoryError) as error:
        return {"name": name, "error": " ".join(str(error).split()).replace(str(upload), name)}


def _spread(pipeline: Any, source: Photograph, settings: JobSettings, report: Report) -> Any:
    from retinashift.app.spread import sample_spread

    calls, done = settings.samples * pipeline.scheduler.config.num_train_timesteps, 0

    def step(state: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        report(min(1.0, done / calls), f"uncertainty: step {done} of {calls}")

    def band(share: float) -> None:  # within a step of a large picture nothing is known of the whole, but one can stop
        report(min(1.0, done / calls), f"uncertainty: step {min(done + 1, calls)} of {calls}")

    return sample_spread(_Watched(pipeline, band), source, settings.samples, settings.seed, step)


def _size(photograph: Photograph) -> str:
    height, width = photograph.pixels.shape[:2]
    return f"{width} x {height}, {photograph.pixels.dtype.itemsize * 8} bit, {photograph.format}"


def safe_name(name: str) -> str:
    """A file name of letters, digits, dots and dashes, at most 80 characters.

    >>> safe_name("<img src=x onerror=alert(1)>.png"), safe_name("../../etc/passwd")
    ('img_src_x_onerror_alert_1_.png', 'passwd')
    """
    base = Path(name.replace("\\", "/")).name
    return re.sub(r"[^A-Za-z0-9.-]+", "_", base).strip("_").lstrip(".")[-80:] or "photograph"
