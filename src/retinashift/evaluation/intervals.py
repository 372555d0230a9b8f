"""Confidence intervals of means over photographs: percentile bootstrap, of means and of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the bootstrap interval around it."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0) -> Interval:
    """Mean with its 95 % interval over photographs drawn again, with replacement.

    The draws depend on the number of values and the seed alone, so the intervals of methods over one set are paired.

    Args:
        values: finite, at least one.
        weights: of the values, at least 0, some above; None weighs all the same.
        seed: of the draws.

    Returns:
        An interval of no width for a single value; nan throughout if some value is infinite.

    Raises:
        ValueError: no value, or no weight.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0)
    >>> bootstrap_mean([0.0, 1.0], [1, 3]).mean
    0.75
    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if not w.sum():
        raise ValueError("no value was given; a mean needs at least one")
    if not np.isfinite(x).all():
        return Interval(float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(0, x.size, (RESAMPLES, x.size))
    drawn = w[draws].sum(1)  # 0 where only photographs without weight were drawn
    means = (w * x)[draws].sum(1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float((w * x).sum() / w.sum()), float(low), float(high))


def paired_difference(
    values: Sequence[float], reference: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Interval:
    """`bootstrap_mean` of the differences, photograph by photograph.

    Raises:
        ValueError: not as many values as references, or none.

    >>> paired_difference([3.0, 5.0], [2.0, 4.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    if len(values) != len(reference):
        raise ValueError(f"{len(values)} values and {len(reference)} references cannot be paired")
    return bootstrap_mean([a - b for a, b in zip(values, reference, strict=True)], weights, seed=seed)
