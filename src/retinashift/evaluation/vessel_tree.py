"""The vessels as a tree: whether centre lines agree, where they break, and how wide the main vessels are."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from retinashift.evaluation.scores import Metric, Result, Score, Scores
from retinashift.evaluation.vessels import CORNERS, THIN, field_width, reference_vessels, result_vessels, widths

FIELD_MM = 13.0
"""Millimetres of retina across a field of view of 45 degrees, 0.29 a degree; every field is taken to be that wide."""
SHORTEST_BREAK, LONGEST_BREAK = 2, 30
"""Pixels of missing centre line that count as a break; longer ones are lost vessels."""


def centreline_dice(found: np.ndarray, truth: np.ndarray, field: np.ndarray) -> float | None:
    """clDice, 0 to 1: harmonic mean of the shares of each mask's centre lines that lie in the other mask, (H, W) bool.

    None where a mask has no centre line in the field.

    Source: Shit et al., "clDice - a novel topology-preserving loss function", CVPR 2021, equation 1.
    """
    lines = skeletonize(found) & field, skeletonize(truth) & field
    if not lines[0].any() or not lines[1].any():
        return None
    precision, sensitivity = float(truth[lines[0]].mean()), float(found[lines[1]].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0


def breaks(found: np.ndarray, truth: np.ndarray, field: np.ndarray) -> tuple[int, int]:
    """Number of breaks in found vessels, and pixels of the truth's centre lines; masks are (H, W) bool.

    A break is a stretch of the truth's centre line of `SHORTEST_BREAK` to `LONGEST_BREAK` pixels that is not found,
    with found centre line at two or more of its ends.
    """
    line = skeletonize(truth) & field
    missing, _ = ndimage.label(line & ~found, CORNERS)
    kept, _ = ndimage.label(line & found, CORNERS)
    number = 0
    for piece, where in enumerate(ndimage.find_objects(missing), 1):
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in where)
        own = missing[around] == piece
        ends = ndimage.binary_dilation(own, CORNERS) & (kept[around] > 0)
        number += int(SHORTEST_BREAK <= own.sum() <= LONGEST_BREAK and ndimage.label(ends, CORNERS)[1] >= 2)
    return number, int(line.sum())


def calibre_error(found: np.ndarray, truth: np.ndarray, field: np.ndarray) -> float | None:
    """Mean relative error of the width of vessels wider than `THIN` pixels, where both masks, (H, W) bool, show them.

    In either mask the largest width within a pixel of the truth's centre line counts, so that a shift of the line is
    no error. 0.1 is widths 10 % off; None where there is no such vessel.
    """
    main = skeletonize(truth) & field & found & (widths(truth) > THIN)
    if not main.any():
        return None
    own, other = (ndimage.maximum_filter(widths(mask), 3)[main] for mask in (truth, found))
    return float(np.mean(np.abs(other - own) / own))


def _measure(result: Result) -> Scores:
    field, subject = result.subject.field, result.subject
    found, own = result.derive(result_vessels).vessels, subject.derive(reference_vessels).vessels
    number, length = breaks(found, own, field)
    millimetres = length * FIELD_MM / field_width(field)
    return {
        "vessel_cldice": centreline_dice(found, own, field),
        "vessel_breaks": number / millimetres if length else None,
        "vessel_calibre": calibre_error(found, own, field),
    }


VESSEL_TREE = Metric(
    (
        Score("vessel_cldice", "clDice", plotted=True, note="agreement of the vessels' centre lines"),
        Score(
            "vessel_breaks", "breaks", 3, "less",
            note=f"stretches of {SHORTEST_BREAK} to {LONGEST_BREAK} pixels of the reference's centre line that are "
            f"missing between found ones, for each mm; the field of view is taken as {FIELD_MM:g} mm wide",
        ),
        Score(
            "vessel_calibre", "calibre", 3, "less",
            note=f"mean relative error of widths above {THIN:g} pixels at centre lines found in both",
        ),
    ),
    _measure,
)  # fmt: skip
