"""Coverage: how often the reference lies inside the interval that a result states, and whether its map ranks errors."""

import numpy as np
from scipy import ndimage, stats

from retinashift.evaluation.scores import Metric, Result, Score, Scores

Z = 1.6448536269514722
"""Half width of the interval of 90 % in standard deviations, as in `models.uncertainty_head`, which loads torch."""
NEIGHBOURS = 5
"""Side of the squares whose mean error and mean map are ranked."""


def absolute_errors(result: Result) -> np.ndarray:
    """|result - reference|, as `Result.sr`, float32 in levels of 255."""
    return np.abs(result.sr.astype(np.float32) - result.subject.hr)


def error_ratios(result: Result) -> np.ndarray:
    """|error| / sigma of the values in the field, all channels together, (n,)."""
    assert result.sigma is not None
    field = result.subject.field
    errors = absolute_errors(result)[field].reshape(int(field.sum()), -1) / 255  # (pixels, C)
    return (errors / result.sigma[field][:, None]).ravel()


def rank_correlation(result: Result) -> float:
    """Spearman's, of map and error over the field; means over `NEIGHBOURS` x `NEIGHBOURS` pixels of both."""
    assert result.sigma is not None
    pair = (result.sigma, absolute_errors(result).reshape(*result.sigma.shape, -1).mean(2))
    smooth = [ndimage.uniform_filter(values, NEIGHBOURS)[result.subject.field] for values in pair]
    return float(stats.spearmanr(*smooth)[0])


def _measure(result: Result) -> Scores:
    return {} if result.sigma is None else {"coverage": float((error_ratios(result) <= Z).mean())}


COVERAGE = Metric(
    (
        Score(
            "coverage", "in 90 %", 3, "none", plotted=True,
            note=f"share of the values in the field of view, RGB pooled, within {Z:.3f} standard deviations of the "
            "result; 90 % is stated",
        ),
    ),
    _measure,
    note="needs a checkpoint with an uncertainty head",
)  # fmt: skip
