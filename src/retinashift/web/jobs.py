"""One job of the page: photographs through the very code of `retinashift upscale`, with progress and cancelling."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from retinashift.imaging.failures import explain
from retinashift.imaging.files import format_of, read_bytes, replace_file
from retinashift.inference.settings import Mode, OutputFormat, Sampling
from retinashift.web.model import Model
from retinashift.web.views import write_views

if TYPE_CHECKING:
    from retinashift.batch.photograph import ResultOptions

Report = Callable[[float, str], None]
MAX_SAMPLES = 64
CALIBRATED = "standard deviation, calibrated: 1.645 of it on each side covers 90 % of values"
NOT_CALIBRATED = "spread of samples (not calibrated)"


@dataclass(frozen=True)
class JobSettings:
    """What the person chose. ValueError for a value outside its range, or two that contradict each other."""

    mode: Mode = "faithful"
    steps: int = 0
    """Network calls a sample; 0 is what the mode says, and all of them where there are `samples`."""
    seed: int = 0
    consistency: bool = True
    samples: int = 0
    """Plain samples whose mean is the result, with a map of their uncertainty; 0 makes none."""
    file_format: OutputFormat = "same"

    def __post_init__(self) -> None:
        for name, lowest, highest in (("steps", 0, 1000), ("seed", 0, 2**63 - 1), ("samples", 0, MAX_SAMPLES)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise ValueError(f"{name} is {value!r}; a whole number from {lowest} to {highest} is needed")
        for name, allowed in (("mode", get_args(Mode)), ("file_format", get_args(OutputFormat))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; {' or '.join(allowed)} is needed")
        if self.samples == 1:
            raise ValueError("samples is 1; the spread of samples needs at least 2, or 0 for none")
        if self.samples and self.mode == "realistic":
            raise ValueError(
                f"mode is realistic, and {self.samples} samples are asked for, whose mean is not; "
                "choose faithful, or 0 samples"
            )
        if self.samples and self.steps == 1:
            raise ValueError(
                f"steps is 1, which is the mean and has no spread, and {self.samples} samples are asked for; "
                "0 steps takes all of them"
            )
        if not isinstance(self.consistency, bool):
            raise ValueError(f"consistency is {self.consistency!r}; true or false is needed")

    def options(self) -> ResultOptions:
        """The same for the command line's code."""
        from retinashift.batch.photograph import ResultOptions

        sampling = Sampling.of_samples(
            mode=None if self.samples else self.mode,
            num_inference_steps=self.steps or None,
            uncertainty=self.samples,
            back_projections=None if self.consistency else 0,
        )
        return ResultOptions(sampling=sampling, seed=self.seed, sidecar=True)


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
    from retinashift.batch.jobs import maps_of, plan_jobs
    from retinashift.batch.photograph import upscale_bytes

    name, scale = safe_name(upload.name), pipeline.config.scale
    started = time.perf_counter()
    try:
        report(0.0, f"{name}: reading")
        (planned,) = plan_jobs([upload], folder / "never", file_format=settings.file_format)
        target = folder / str(number) / f"{Path(name).stem}_x{scale}{planned.target.suffix}"
        options = settings.options()
        steps = pipeline.plan(options.sampling).steps
        work = f"{settings.samples} samples of " if settings.samples else ""
        work += f"{steps} step{'s' if steps > 1 else ''}"

        def bands(share: float) -> None:
            report(0.95 * share, f"{name}: {work}, {share:.0%}")

        upscaled = upscale_bytes(pipeline, read_bytes(upload), str(upload), target, options, bands)
        target.parent.mkdir()
        for path, data in upscaled.files():
            replace_file(path, data)
        seconds, source = time.perf_counter() - started, upscaled.source.photograph
        report(0.95, f"{name}: drawing")
        views = write_views(target.parent, source.pixels, upscaled.pixels, scale, upscaled.sigma, reference)
        return {
            "name": name,
            "saved": target.name,
            "number": number,
            "scale": scale,
            "seconds": round(seconds, 2),
            "input": _size(source.pixels, source.format),
            "output": _size(upscaled.pixels, str(format_of(target))),
            "provenance": asdict(upscaled.record),
            "maps": [path.name for path in maps_of(target)] if settings.samples else [],
            "meaning": (CALIBRATED if upscaled.calibrated else NOT_CALIBRATED) if settings.samples else "",
            **views,
        }
    except Exception as error:
        return {"name": name, "error": explain(error).text.replace(str(upload), name)}


def _size(pixels: np.ndarray, file_format: str) -> str:
    height, width = pixels.shape[:2]
    return f"{width} x {height}, {pixels.dtype.itemsize * 8} bit, {file_format}"


def safe_name(name: str) -> str:
    """A file name of letters, digits, dots and dashes, at most 80 characters.

    >>> safe_name("<img src=x onerror=alert(1)>.png"), safe_name("../../etc/passwd")
    ('img_src_x_onerror_alert_1_.png', 'passwd')
    """
    base = Path(name.replace("\\", "/")).name
    return re.sub(r"[^A-Za-z0-9.-]+", "_", base).strip("_").lstrip(".")[-80:] or "photograph"
