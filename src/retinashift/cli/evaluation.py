"""The work of the evaluate command: photographs through the baselines, a checkpoint and the results of others."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from retinashift.cli.display import Display, Failures
from retinashift.data.checks import read_trained_on
from retinashift.data.labels import find_label, read_label
from retinashift.data.photographs import (
    FileRef,
    Source,
    Split,
    by_stem_path,
    content_hash,
    find_photographs,
    list_source,
    stem_path,
)
from retinashift.evaluation.benchmark import Method, PrecomputedMethod, baseline, evaluate
from retinashift.evaluation.lesions import Mark, read_marks
from retinashift.evaluation.metrics import DEFAULT_METRICS, chosen_metrics
from retinashift.evaluation.page import Gallery
from retinashift.evaluation.report import Interval, Report
from retinashift.evaluation.scores import Estimate, Observed
from retinashift.imaging.degradation.pipeline import DEGRADATIONS, Degradation, read_section
from retinashift.imaging.files import ImageError
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.training.settings import TrainConfig

logger = logging.getLogger(__name__)

SHOWN = 4
"""Photographs with crops in the page."""
MARKINGS = "markings.csv"
"""Lesions that experts marked, in the folder of photographs or beside it."""


def parse_metrics(text: str) -> tuple[str, ...]:
    """ "vessels,st-lpips" as a tuple; "none" is none of them, "" the default. ValueError for an unknown one."""
    if not text:
        return DEFAULT_METRICS
    try:
        return chosen_metrics(name.strip() for name in text.split(",")) if text != "none" else ()
    except ValueError as error:
        raise ValueError(f"--metrics {text}: {error}, or none") from None


def parse_degradation(text: str) -> Degradation:
    """The degradation of this name with its default settings, or the one in a file of training settings. ValueError."""
    if Path(text).is_file():
        return TrainConfig.load(text).degradation
    try:
        kind, _ = read_section({"kind": text})
    except ValueError:
        allowed = ", ".join(DEGRADATIONS)
        raise ValueError(f"--degradation is {text!r}; {allowed} or a file of training settings is allowed") from None
    return kind()


def parse_seeds(text: str) -> list[int]:
    """Whole numbers from 0, by commas. ValueError for another text, or none."""
    if not all(number.strip().isdecimal() for number in text.split(",")):
        raise ValueError(f"--seeds is {text!r}; whole numbers from 0, by commas, are needed, such as 0,1,2")
    return [int(number) for number in text.split(",")]


def parse_against(given: list[str]) -> dict[str, Path]:
    """Folders by name, from NAME=FOLDER each. ValueError for another form, a name twice, or a missing folder."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--against {text}: the form is NAME=FOLDER")
        if name in found:
            raise ValueError(f"--against has the name {name} twice")
        found[name] = Path(folder).expanduser()
        if not found[name].is_dir():
            raise ValueError(f"--against {name}: there is no folder {folder}")
    return found


def run_evaluation(
    checkpoints: Mapping[str, ResShiftPipeline],
    data: str,
    ways: list[Sampling],
    seeds: list[int],
    metrics: tuple[str, ...],
    *,
    limit: int,
    split: Split | None,
    labels: Path | None,
    against: dict[str, Path],
    degradation: Degradation,
    scale: int | None,
    display: Display,
    failures: Failures,
) -> tuple[Report, Gallery]:
    """Scores of checkpoints, by name, each in several ways, and crops of a few photographs.

    Of several checkpoints the first is compared with the others. The other arguments are options of the command. No
    `split` is every photograph of any set; no `labels` looks where STARE and DRIVE have them.

    Raises:
        ValueError: the checkpoints have different scales, one does not allow a way, a result of another method is
            missing, or no photograph can be scored.
    """
    if split is None:
        refs = find_photographs(data)
    else:
        refs = [item.hr for item in list_source(Source(data, "stare", split=split))]
    refs = refs[: limit or None]
    learned = _learned(refs, checkpoints)
    scales = {name: pipeline.config.scale for name, pipeline in checkpoints.items()}
    if len(set(scales.values())) > 1 and scale is None:
        given = ", ".join(f"{name} x{factor}" for name, factor in scales.items())
        raise ValueError(f"the checkpoints have different scales ({given}); compare those of one scale")
    factor = scale or next(iter(scales.values()))
    methods: list[Method | PrecomputedMethod] = [baseline(name, factor) for name in ("nearest", "bicubic", "lanczos")]
    methods += [_others(name, folder, refs) for name, folder in against.items()]
    first = len(methods)
    for name, pipeline in checkpoints.items():
        called = "retinashift" if len(checkpoints) == 1 else name
        asked = {"scale": scale, "output_uncertainty": "coverage" in metrics}
        methods += [_ours(called, pipeline, replace(way, **asked)) for way in ways]  # type: ignore[arg-type]
    drawn = {ref.name: path for ref in refs if (path := _label(ref, labels)) is not None}
    marks = _marks(data) if "lesions" in metrics else {}
    gallery = Gallery(frozenset(refs[i].name for i in np.linspace(0, len(refs) - 1, min(SHOWN, len(refs))).astype(int)))
    report = evaluate(
        display.track([(ref.name, partial(read_rgb, ref)) for ref in refs], "Evaluating"),
        methods,
        scale=factor,
        seeds=seeds,
        metrics=metrics,
        degradation=degradation,
        observed=lambda image: Observed(
            read_label(drawn[image]) if image in drawn else None, marks.get(Path(image).name)
        ),
        on_result=gallery.add,
        on_failure=failures.add,
    )
    return replace(report, trained_on=learned, reference=methods[first].name if len(checkpoints) > 1 else ""), gallery


def difference_table(report: Report) -> list[list[str]]:
    """The reference method less each other, with the interval, heading first."""
    scores = [score for score in report.scores("fidelity") if score.heading and score.better != "none"]

    def text(interval: Interval | None, sign: str) -> str:
        if interval is None or not np.isfinite(interval.mean):
            return "-"
        return f"{interval.mean:{sign}} ({interval.low:{sign}} to {interval.high:{sign}})"

    return [[f"{report.compared_with} less", *(score.heading for score in scores)]] + [
        [method, *(text(found.get(score.name), f"+.{score.decimals}f") for score in scores)]
        for method, found in report.differences().items()
    ]


def read_rgb(ref: FileRef) -> np.ndarray:
    """(H, W, 3) uint8. ImageError for a photograph of 16 bit."""
    pixels = ref.read()
    if pixels.dtype != np.uint8:
        raise ImageError(f"{ref.name} is {pixels.dtype}; the protocol scores 8-bit photographs")
    return np.ascontiguousarray(pixels)


def _learned(refs: list[FileRef], checkpoints: Mapping[str, ResShiftPipeline]) -> tuple[str, ...]:
    """Names of the photographs that a checkpoint was trained on, by their content; a warning counts them."""
    trained_on = {name: read_trained_on(Path(pipe.name_or_path or "")) for name, pipe in checkpoints.items()}
    hashes = {ref.name: content_hash(ref) for ref in refs} if any(trained_on.values()) else {}
    for name, known in trained_on.items():
        learned = [image for image, digest in hashes.items() if digest in known]
        if learned:
            shown = ", ".join(learned[:3]) + (f" and {len(learned) - 3} more" if len(learned) > 3 else "")
            logger.warning(
                "%s was trained on %d of %d photographs, so their scores say nothing: %s",
                "the checkpoint" if len(checkpoints) == 1 else name, len(learned), len(refs), shown,
            )  # fmt: skip
    return tuple(image for image, digest in hashes.items() if any(digest in known for known in trained_on.values()))


def _ours(called: str, pipeline: ResShiftPipeline, way: Sampling) -> Method:
    """The checkpoint with these settings; ValueError if it does not allow them."""
    plan = pipeline.plan(way)
    steps = plan.steps

    def run(lr: np.ndarray, seed: int) -> np.ndarray | Estimate:
        made = pipeline(lr, generator=torch.Generator().manual_seed(seed), **vars(way))
        return Estimate(made.images[0], made.sigma[0]) if made.sigma else made.images[0]

    name = way.mode or f"{steps} step{'s' if steps > 1 else ''}"
    name += f", {way.turns} turns" if way.turns > 1 else ""
    name += f", strength {way.strength:g}" if way.strength < 1 else ""
    name = name if way.precision in ("auto", "fp32") else f"{name}, {way.precision}"
    return Method(f"{called}, {name}", run, stochastic=plan.noise)


def _others(name: str, folder: Path, refs: list[FileRef]) -> PrecomputedMethod:
    """Results matched by name, suffix apart, in sub-folders like the photographs'. ValueError names one missing."""
    files = by_stem_path(find_photographs(folder), folder)
    missing = [ref.name for ref in refs if stem_path(ref.name) not in files]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"--against {name}: {folder} has no result named {stem_path(missing[0])} (any type){more}")

    return PrecomputedMethod(name, lambda image: read_rgb(files[stem_path(image)]))


def _label(ref: FileRef, folder: Path | None) -> Path | None:
    """Labels lie in folders, never in the zip, which has none; a named folder serves both."""
    if ref.member and folder is None:
        return None
    return find_label(ref.path if not ref.member else Path(ref.name), folder)


def _marks(data: str) -> dict[str, tuple[Mark, ...]]:
    """Lesions by file name. ValueError where no `MARKINGS` lies in the folder or beside it."""
    for folder in (Path(data), Path(data).absolute().parent):
        if (folder / MARKINGS).is_file():
            return read_marks(folder / MARKINGS)
    raise ValueError(f"--metrics lesions: no {MARKINGS} in {data} or beside it; put it there, or leave the metric out")
