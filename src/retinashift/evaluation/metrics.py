"""The table of metrics, and scoring one result by it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from retinashift.evaluation import lesions, similarity, vessels
from retinashift.evaluation.scores import Metric, Result, Score, Scores, weighted

METRICS: dict[str, Metric] = {
    "vessels": vessels.vessels,
    "vessel-tree": vessels.vessel_tree,
    "lesions": lesions.lesions,
    "colour": similarity.colour,
    "spectrum": similarity.spectrum,
    "coverage": similarity.coverage,
    "st-lpips": similarity.shift_tolerant,
    "lpips": similarity.perceptual,
}
"""By the name that `--metrics` takes, in the order of the columns. PSNR, SSIM and consistency are always measured."""

DEFAULT_METRICS = ("vessels", "spectrum")
"""Measured where none are named."""
COST = (Score("wall_seconds", "seconds", 2, "less"), Score("cpu_seconds", "CPU s", 2, "less"))
"""What the benchmark itself measures of a method's run."""


def chosen_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of the table, each once. ValueError for one that is not in it."""
    given = list(names)
    for name in given:
        if name not in METRICS:
            raise ValueError(f"there is no metric {name!r}; allowed are {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in given)


def scores_of(metrics: Iterable[str], table: Literal["fidelity", "detail"] | None = None) -> list[Score]:
    """The scores of a report with these metrics, in the order of its columns: always measured, the rest, or both."""
    fidelity = [*similarity.fidelity.scores, *COST]
    detail = [score for name in metrics for score in METRICS[name].scores]
    return {"fidelity": fidelity, "detail": detail, None: fidelity + detail}[table]


def measure(result: Result, metrics: Sequence[str]) -> Result:
    """The result with the scores of these metrics, of `fidelity`, and those it had.

    ValueError: another shape or dtype than the photograph's, or a photograph below 11x11.
    """
    scores: Scores = dict(result.scores)
    for metric in (similarity.fidelity, *(METRICS[name] for name in metrics)):
        scores |= metric.measure(result)
    return replace(result, scores=scores)


def mean_scores(rows: Sequence[Scores], scores: Sequence[Score]) -> Scores:
    """Mean of each score over the rows that have it, by its weight if it has one; None where no row has it."""
    found = {score.name: weighted(score, rows, rows) for score in scores}
    return {name: fmean(values, weights) if sum(weights) else None for name, (values, weights) in found.items()}
