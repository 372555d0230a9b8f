"""Lesions: whether what experts marked keeps its contrast in a result, and whether new spots appear.

A lesion is darker (red small dots, haemorrhages) or brighter (exudates) than its surround in the green channel. Its
contrast is the mean inside the mark less the mean of a ring around it, over the local background; over the standard
deviation in the ring of the reference it is the contrast-to-noise ratio (CNR). The noise is the reference's for every
method, so that blur cannot raise the ratio. The constants were chosen on the photographs that are not scored.
"""

import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from retinashift.evaluation.scores import Mark, Result, Score, Scores, Subject, metric
from retinashift.evaluation.vessels import local_contrast

KINDS = {
    "Red_small_dots": ("red_dots", -1),
    "Haemorrhages": ("haemorrhages", -1),
    "Hard_exudates": ("hard_exudates", 1),
    "Soft_exudates": ("soft_exudates", 1),
}
"""By the type in a CSV: name in scores, and sign of the contrast."""
EXPERTS = 2  # who must have marked a lesion
REACH = 5.0  # pixels between the marks of two experts who mean the same small lesion
SMALL = 4.0  # radius in pixels up to which a mark is small
VISIBLE = 1.0  # CNR from which the reference shows a marked lesion; others are not counted
KEPT = 0.5  # share of the reference's CNR that a kept lesion has
BACKGROUND_SIGMA = 12.0  # blur of the local background in pixels
SPOT_SIGMA = 1.8  # pixels; such a filter answers most to dark disks as small as the experts' smallest mark
SPOT_CONTRAST = 0.15  # of spots that are false where the reference has less than half; most red small dots reach it


def read_marks(path: str | Path) -> dict[str, tuple[Mark, ...]]:
    """Lesions on which experts agree, by name of photograph, also of those without lesions; see `agreed`.

    Args:
        path: CSV with the columns file, expert, type, x, y and radius, in pixels of the photograph.

    Raises:
        ValueError: a column is missing, or a number cannot be read.
    """
    columns = ("file", "expert", "type", "x", "y", "radius")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in columns if rows and name not in rows[0]]
    if missing or not rows:
        raise ValueError(f"{path} lacks {', '.join(missing) or 'rows'}; columns needed are {', '.join(columns)}")
    given: dict[str, list[tuple[str, Mark]]] = {row["file"]: [] for row in rows}
    try:
        for row in rows:
            mark = Mark(row["type"], float(row["x"]), float(row["y"]), float(row["radius"]))
            given[row["file"]].append((row["expert"], mark))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a line that cannot be read ({error}); numbers are needed") from None
    return {image: agreed(marks) for image, marks in given.items()}


def agreed(marks: Sequence[tuple[str, Mark]]) -> tuple[Mark, ...]:
    """What at least `EXPERTS` experts marked: the smallest of the marks that mean the same, in the order of `KINDS`.

    Marks of one type by different experts mean the same where their centres lie within `REACH` or the smaller radius.
    """
    same = np.zeros((len(marks), len(marks)), bool)  # (n, n)
    for (i, (expert, a)), (j, (other, b)) in combinations(enumerate(marks), 2):
        near = np.hypot(a.x - b.x, a.y - b.y) <= max(REACH, min(a.radius, b.radius))
        same[i, j] = a.kind == b.kind and expert != other and near
    number, group = connected_components(same, directed=False) if marks else (0, ())
    found = []
    for own in range(number):
        members = [mark for mark, its in zip(marks, group, strict=True) if its == own]
        if len({expert for expert, _ in members}) >= EXPERTS:
            found.append(min((mark for _, mark in members), key=lambda mark: mark.radius))
    return tuple(mark for kind in KINDS for mark in found if mark.kind == kind)


def contrasts(local: np.ndarray, field: np.ndarray, marks: Sequence[Mark]) -> tuple[np.ndarray, np.ndarray]:
    """Contrast of each mark, positive where it has the sign of its kind, and the noise around it.

    The mean inside less the mean in a ring, from 2 pixels beyond the mark to 4 pixels beyond twice its radius, and the
    standard deviation in the ring, (n,) each, over the local background; nan where ring or mark leaves the field.
    `local` comes from `local_contrast`; `field` is (H, W) bool.
    """
    rows, columns = np.ogrid[: field.shape[0], : field.shape[1]]
    found = np.full((2, len(marks)), np.nan)
    for number, mark in enumerate(marks):
        distance = np.hypot(rows - mark.y, columns - mark.x)  # (H, W)
        disk = field & (distance <= mark.radius)
        ring = field & (distance > mark.radius + 2) & (distance <= 2 * mark.radius + 4)
        if disk.any() and ring.sum() > 0.5 * np.pi * ((2 * mark.radius + 4) ** 2 - (mark.radius + 2) ** 2):
            sign = KINDS[mark.kind][1]
            found[:, number] = sign * (local[disk].mean() - local[ring].mean()), local[ring].std()
    return found[0], found[1]


def dark_spots(local: np.ndarray) -> np.ndarray:
    """Response to dark spots of `SPOT_SIGMA`, (H, W): the contrast of a Gaussian spot of that size at its middle."""
    return 2 * SPOT_SIGMA**2 * ndimage.gaussian_laplace(local, SPOT_SIGMA)


def false_spots(response: np.ndarray, reference: np.ndarray, field: np.ndarray) -> int:
    """Number of peaks in a result's `dark_spots` without one within 2 pixels in the reference's, 4 inside the field."""
    peaks = (response == ndimage.maximum_filter(response, 5)) & (response >= SPOT_CONTRAST)
    shown = ndimage.maximum_filter(reference, 5) >= SPOT_CONTRAST / 2
    return int((peaks & ~shown & ndimage.binary_erosion(field, iterations=4)).sum())


def spots_at(response: np.ndarray, reference: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """`dark_spots` of a result over the reference's, (n,), where these are largest within a pixel of each mark."""
    ratios = []
    for mark in marks:
        row, column = max(1, round(mark.y)), max(1, round(mark.x))
        window = slice(row - 1, row + 2), slice(column - 1, column + 2)
        best = np.unravel_index(reference[window].argmax(), reference[window].shape)
        ratios.append(response[window][best] / reference[window][best])
    return np.array(ratios)


def _reference(subject: Subject) -> tuple[tuple[Mark, ...], np.ndarray, np.ndarray]:
    """The visible marks, their contrast, (n,), and the response to dark spots, (H, W)."""
    marks, local = subject.observed.lesions or (), local_contrast(subject.hr, subject.field, BACKGROUND_SIGMA)
    contrast, noise = contrasts(local, subject.field, marks)
    visible = contrast >= VISIBLE * noise  # False for nan
    chosen = tuple(mark for mark, seen in zip(marks, visible, strict=True) if seen)
    return chosen, contrast[visible], dark_spots(local)


def _scores() -> tuple[Score, ...]:
    """Share kept, mean ratio and number of marks of each kind; tables leave the small ones to the files."""
    found = []
    for name, _ in KINDS.values():
        kept, first = f"{name.replace('_', ' ')} kept", name == "red_dots"
        note = f"share of marks with at least {KEPT:g} of the reference's contrast" if first else ""
        for key, heading in ((name, kept), (f"{name}_small", "")):
            found += [
                Score(f"{key}_kept", heading, plotted=bool(heading), note=heading and note, weight=f"{key}_marks"),
                Score(f"{key}_ratio", "red dots contrast" if key == "red_dots" else "", 2, weight=f"{key}_marks"),
                Score(f"{key}_marks", better="none"),
            ]
    seen = (
        f"share with at least {KEPT:g} of the reference's response of a Laplacian of Gaussian, sigma {SPOT_SIGMA:g}, "
        "at its largest within a pixel of the mark"
    )
    false = f"peaks of contrast {SPOT_CONTRAST:g} of that filter where the reference has less than half within 2 pixels"
    return (
        Score("red_dots_seen", "red dots seen", plotted=True, note=seen, weight="red_dots_marks"),
        *found,
        Score("false_spots", "false spots", 2, "less", plotted=True, note=false),
    )


@metric(
    *_scores(),
    protocol={
        "lesions": f"marks of at least {EXPERTS} experts with centres within {REACH:g} pixels or the smaller radius, "
        f"and a contrast-to-noise ratio of at least {VISIBLE:g} in the reference; green over its background; the noise "
        f"is the reference's; every mark counts once; small: radius up to {SMALL:g} pixels"
    },
    note="needs markings.csv beside the photographs",
)
def lesions(result: Result) -> Scores:
    if result.subject.observed.lesions is None:
        return {}
    field = result.subject.field
    local = local_contrast(result.sr, field, BACKGROUND_SIGMA)
    marks, contrast, reference = result.subject.derive(_reference)
    ratio = contrasts(local, field, marks)[0] / contrast
    response = dark_spots(local)
    scores: Scores = {"false_spots": float(false_spots(response, reference, field))}
    dots = [mark for mark in marks if mark.kind == "Red_small_dots"]
    if dots:
        scores["red_dots_seen"] = float((spots_at(response, reference, dots) >= KEPT).mean())
    for kind, (name, _) in KINDS.items():
        for key, largest in ((name, np.inf), (f"{name}_small", SMALL)):
            own = ratio[[mark.kind == kind and mark.radius <= largest for mark in marks]]
            scores[f"{key}_marks"] = float(own.size)
            if own.size:
                scores |= {f"{key}_kept": float((own >= KEPT).mean()), f"{key}_ratio": float(own.mean())}
    return scores
