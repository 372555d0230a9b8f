"""What evaluate, calibrate and coverage compute with: options, photographs, labels and methods. It loads torch."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from retinashift.data.checks import read_trained_on
from retinashift.data.labels import find_label, read_label
from retinashift.data.photographs import FileRef, by_stem_path, content_hash, find_photographs, stem_path
from retinashift.evaluation.benchmark import Method, PrecomputedMethod
from retinashift.evaluation.lesions import read_marks
from retinashift.evaluation.metrics import DEFAULT_METRICS, chosen_metrics
from retinashift.evaluation.report import Interval, Report
from retinashift.evaluation.scores import Estimate, Mark, Observed, Score
from retinashift.imaging.degradation.pipeline import DEGRADATIONS, Degradation, read_section
from retinashift.imaging.failures import first_and_more
from retinashift.imaging.files import ImageError
from retinashift.inference.gate import listed
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.training.settings import TrainConfig

logger = logging.getLogger(__name__)

MARKINGS = "markings.csv"  # lesions that experts marked, in the folder of photographs or beside it


def parse_metrics(text: str) -> tuple[str, ...]:
    """ "vessels,st-lpips" as a tuple; "none" is none of them, "" the default. ValueError for an unknown one."""
    if text == "none":
        return ()
    try:
        return chosen_metrics(name.strip() for name in text.split(",")) if text else DEFAULT_METRICS
    except ValueError as error:
        raise ValueError(f"--metrics {text}: {error}, or none") from None


def parse_degradation(text: str) -> Degradation:
    """The degradation of this name with its default settings, or the one in a file of training settings. ValueError."""
    if Path(text).is_file():
        return TrainConfig.load(text).degradation
    try:
        return read_section({"kind": text})[0]()
    except ValueError:
        allowed = ", ".join(DEGRADATIONS)
        raise ValueError(f"--degradation is {text!r}; {allowed} or a file of training settings is allowed") from None


def parse_seeds(text: str) -> list[int]:
    """Whole numbers from 0, by commas. ValueError for another text, or none."""
    numbers = [number.strip() for number in text.split(",")]
    if not all(map(str.isdecimal, numbers)):
        raise ValueError(f"--seeds is {text!r}; whole numbers from 0, by commas, are needed, such as 0,1,2")
    return list(map(int, numbers))


def parse_against(given: Iterable[str]) -> dict[str, Path]:
    """Folders by name, from NAME=FOLDER each. ValueError for another form, a name twice, or a missing folder."""
    found: dict[str, Path] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not (name and folder):
            raise ValueError(f"--against {text}: the form is NAME=FOLDER")
        if name in found:
            raise ValueError(f"--against has the name {name} twice")
        found[name] = Path(folder).expanduser()
        if not found[name].is_dir():
            raise ValueError(f"--against {name}: there is no folder {folder}")
    return found


def read_rgb(ref: FileRef) -> np.ndarray:
    """(H, W, 3) uint8. ImageError for a photograph of 16 bit."""
    pixels = ref.read()
    if pixels.dtype != np.uint8:
        raise ImageError(f"{ref.name} is {pixels.dtype}; the protocol scores 8-bit photographs")
    return np.ascontiguousarray(pixels)


def readers(refs: Iterable[FileRef]) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """Name of each photograph, and the function that reads it when its turn comes."""
    return [(ref.name, partial(read_rgb, ref)) for ref in refs]


def common_scale(checkpoints: Mapping[str, ResShiftPipeline]) -> int:
    """The scale of all checkpoints. ValueError where they have several."""
    scales = {name: pipeline.config.scale for name, pipeline in checkpoints.items()}
    if len(set(scales.values())) > 1:
        given = ", ".join(f"{name} x{factor}" for name, factor in scales.items())
        raise ValueError(f"the checkpoints have different scales ({given}); compare those of one scale")
    return next(iter(scales.values()))


def trained_on(refs: list[FileRef], checkpoints: Mapping[str, ResShiftPipeline]) -> tuple[str, ...]:
    """Names of the photographs that a checkpoint was trained on, by their content; a warning counts them."""
    known = {name: read_trained_on(Path(pipeline.name_or_path or "")) for name, pipeline in checkpoints.items()}
    hashes = {ref.name: content_hash(ref) for ref in refs} if any(known.values()) else {}
    for name, own in known.items():
        learned = [image for image, digest in hashes.items() if digest in own]
        if learned:
            logger.warning(
                "%s was trained on %d of %d photographs, so their scores say nothing: %s",
                "the checkpoint" if len(checkpoints) == 1 else name, len(learned), len(refs), listed(learned),
            )  # fmt: skip
    return tuple(image for image, digest in hashes.items() if any(digest in own for own in known.values()))


def method_of_results(name: str, folder: Path, refs: list[FileRef]) -> PrecomputedMethod:
    """The pictures in a folder, named as their photographs, suffix apart. ValueError names one that is missing."""
    files = by_stem_path(find_photographs(folder), folder)
    missing = [stem_path(ref.name) for ref in refs if stem_path(ref.name) not in files]
    if missing:
        raise ValueError(f"--against {name}: {folder} has no result named {first_and_more(missing)}, of any type")
    return PrecomputedMethod(name, lambda image: read_rgb(files[stem_path(image)]))


def method_of(name: str, pipeline: ResShiftPipeline, way: Sampling) -> Method:
    """The checkpoint with these settings; ValueError if it does not allow them."""
    plan = pipeline.plan(way)

    def run(lr: np.ndarray, seed: int) -> np.ndarray | Estimate:
        made = pipeline(lr, generator=torch.Generator().manual_seed(seed), **vars(way))
        return Estimate(made.images[0], made.sigma[0]) if made.sigma else made.images[0]

    name += f", {way.mode}" if way.mode else f", {plan.steps} step{'s' if plan.steps > 1 else ''}"
    name += f", {way.turns} turns" if way.turns > 1 else ""
    name += f", strength {way.strength:g}" if way.strength < 1 else ""
    name += f", {way.precision}" if way.precision in ("bf16", "fp16") else ""
    return Method(name, run, stochastic=plan.noise)


def marked_by_experts(data: str, refs: list[FileRef], labels: Path | None, lesions: bool) -> Callable[[str], Observed]:
    """What experts marked on the photograph of a name: vessels, and lesions, whose file is then needed (ValueError).

    No `labels` looks where STARE and DRIVE have them. Labels lie in folders, never in the zip of the photographs.
    """
    paths = {ref.name: Path(ref.name) if ref.member else ref.path for ref in refs if labels or not ref.member}
    drawn = {name: find_label(path, labels) for name, path in paths.items()}
    marks: dict[str, tuple[Mark, ...]] = {}
    if lesions:
        places = (Path(data), Path(data).absolute().parent)
        file = next((folder / MARKINGS for folder in places if (folder / MARKINGS).is_file()), None)
        if file is None:
            missing = f"no {MARKINGS} in {data} or beside it; put it there, or leave the metric out"
            raise ValueError(f"--metrics lesions: {missing}")
        marks = read_marks(file)

    def observed(image: str) -> Observed:
        label = drawn.get(image)
        return Observed(None if label is None else read_label(label), marks.get(Path(image).name))

    return observed


def difference_table(report: Report) -> list[list[str]]:
    """The reference method less each other, with the interval, heading first."""
    scores = [score for score in report.scores("fidelity") if score.heading and score.better != "none"]

    def text(score: Score, interval: Interval | None) -> str:
        if interval is None or not np.isfinite(interval.mean):
            return "-"
        mean, low, high = (score.text(value, "+") for value in (interval.mean, interval.low, interval.high))
        return f"{mean} ({low} to {high})"

    rows = [[f"{report.compared_with} less", *(score.heading for score in scores)]]
    for method, found in report.differences().items():
        rows.append([method, *(text(score, found.get(score.name)) for score in scores)])
    return rows
