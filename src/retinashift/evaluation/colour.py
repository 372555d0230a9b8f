"""Colour: the difference between result and reference as an observer sees it."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from retinashift.evaluation.scores import Metric, Result, Score, Scores
from retinashift.evaluation.similarity import check_pair


def colour_differences(sr: np.ndarray, hr: np.ndarray, field: np.ndarray) -> np.ndarray:
    """CIEDE2000 of each pixel in the field, (n,); about 1 is just noticeable.

    Args:
        sr, hr: (H, W, 3), uint8 sRGB, seen under D65.
        field: (H, W) bool.

    Raises:
        ValueError: shapes or dtypes as for `psnr_rgb`.

    Source: Luo, Cui, Rigg, "The development of the CIE 2000 colour-difference formula", 2001; as in scikit-image.
    """
    check_pair(sr, hr, field)
    return deltaE_ciede2000(rgb2lab(hr[field]), rgb2lab(sr[field]))


def _measure(result: Result) -> Scores:
    if result.sr.ndim == 2:
        return {}
    difference = colour_differences(result.sr, result.subject.hr, result.subject.field)
    return {"colour_mean": float(difference.mean()), "colour_p95": float(np.percentile(difference, 95))}


COLOUR = Metric(
    (
        Score("colour_mean", "colour", 2, "less", plotted=True, note="mean CIEDE2000 in the field of view, sRGB, D65"),
        Score("colour_p95", "colour 95 %", 2, "less", note="95th percentile of it"),
    ),
    _measure,
)
