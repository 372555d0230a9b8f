"""Coverage: how often the reference lies inside the interval that a result states."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retinashift.evaluation.scores import Metric, Result, Score, Scores

Z = 1.6448536269514722
"""Half width of the interval of 90 % in standard deviations, as in `inference.uncertainty`, which loads torch."""


def covered_shares(ratios: np.ndarray, half_widths: Iterable[float]) -> list[float]:
    """Share of the ratios |error| / sigma, (n,), that are at most k, for each k."""
    return [float((ratios <= k).mean()) for k in half_widths]


def _measure(result: Result) -> Scores:
    """Of the values in the field: share with |hr - sr| <= Z sigma, all channels together; 0.9 if sigma is right."""
    if result.sigma is None:
        return {}
    field, hr = result.subject.field, result.subject.hr
    errors = np.abs(hr[field].astype(np.float32) - result.sr[field]).reshape(int(field.sum()), -1) / 255  # (n, C)
    return {"coverage": covered_shares((errors / result.sigma[field][:, None]).ravel(), [Z])[0]}


COVERAGE = Metric(
    (Score("coverage", "in 90 %", 3, "none", plotted=True, note="share of values that lie where 90 % are stated"),),
    _measure,
    {
        "coverage": "share of the values in the field of view, RGB pooled, within 1.645 standard deviations of the "
        "uncertainty map from the result; 90 % is stated",
    },
    note="needs a checkpoint with an uncertainty head",
)
