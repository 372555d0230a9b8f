"""Coverage: how often the reference lies inside the interval that a result states."""

from __future__ import annotations

import numpy as np

from retinashift.evaluation.scores import Estimate, Metric, Result, Score, Scores


def covered(estimate: Estimate, hr: np.ndarray, field: np.ndarray) -> float | None:
    """Share of the values in the field with |hr - mean| <= Z sigma, all channels together: 0.9 if sigma is right.

    Args:
        hr: as `estimate.mean`, uint8.
        field: (H, W) bool.

    Returns:
        None where nothing was sampled in the field.
    """
    from retinashift.inference.uncertainty import Z, coverage  # loads torch, which the help of the command must not

    errors = hr[field] / np.float32(255) - estimate.mean[field]  # (n, 3) or (n,)
    sigma = estimate.sigma[field]  # (n,)
    if not sigma.any():
        return None
    return coverage(errors, np.broadcast_to(sigma.reshape(-1, *[1] * (errors.ndim - 1)), errors.shape), [Z])[0]


def _measure(result: Result) -> Scores:
    if result.estimate is None:
        return {}
    return {"coverage": covered(result.estimate, result.subject.hr, result.subject.field)}


COVERAGE = Metric(
    (Score("coverage", "in 90 %", 3, "none", plotted=True, note="share of values that lie where 90 % are stated"),),
    _measure,
    {
        "coverage": "share of the values in the field of view, RGB pooled, within 1.645 calibrated standard deviations "
        "of the mean of samples, where something was sampled; 90 % is stated",
    },
    note="needs a calibrated checkpoint",
)
