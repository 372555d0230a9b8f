"""Vessels: a map of them by oriented line filters, and how well two maps agree, as areas and as a tree.

A classical filter and no network, so that it has learned nothing, is the same for everybody, and can be read. It sees
a vessel as a line in the green channel that is darker than its surroundings by a few per cent. Its constants were
chosen on the photographs of DRIVE and STARE themselves, never on a reconstruction of them.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage, stats
from skimage.morphology import skeletonize

from retinashift.evaluation.scores import Result, Score, Scores, Subject, metric

SIGMAS = (1.2, 1.8, 2.7)
"""Half widths of the filters in pixels of a field up to `REFERENCE_WIDTH` wide; wider ones scale them."""
ELONGATION = 2.5
"""Length over width of a filter."""
ORIENTATIONS = 16
NORMALISATION = 1.5
"""Power of sigma that makes scales comparable; for lines, after Lindeberg, IJCV 30(2), 1998. 2 would hide thin ones."""
REFERENCE_WIDTH = 540
"""Pixels across the field of DRIVE."""
BACKGROUND_SIGMA = 10.0
"""Blur of the background, in the same pixels: wider than any vessel."""
VESSEL_SHARE = 0.12
"""Share of the field that counts as vessel in the photograph: what observers marked on DRIVE and STARE, about."""
THIN = 3.0
"""Pixels; vessels up to this width are the thin ones."""
SPECK = 30
"""Pixels that a piece of vessel has at least, in a field up to `REFERENCE_WIDTH` wide."""
CORNERS = ndimage.generate_binary_structure(2, 2)
"""Neighbours at corners belong together."""
FIELD_MM = 13.0
"""Millimetres of retina across a field of view of 45 degrees, 0.29 a degree; every field is taken to be that wide."""
SHORTEST_BREAK, LONGEST_BREAK = 2, 30
"""Pixels of missing centre line that count as a break; longer ones are lost vessels."""


def vesselness(rgb: np.ndarray, field: np.ndarray) -> np.ndarray:
    """How much each pixel looks like a vessel, (H, W) float32, at least 0; 0 outside the field.

    The background is divided out, so that the result is a contrast and does not depend on the illumination. Then the
    largest second derivative across a line is taken, along ellipses in `ORIENTATIONS` directions at scales `SIGMAS`.

    Args:
        rgb: (H, W, 3) or (H, W), uint8; of colours the green channel is used.
        field: (H, W) bool, see `field_of_view`.

    Source: the matched filters of Chaudhuri et al., IEEE TMI 8(3), 1989, with the elongated second derivatives of
    Gaussians of Freeman and Adelson, IEEE PAMI 13(9), 1991, several scales normalised after Lindeberg.
    """
    unit = _unit(field)
    contrast = local_contrast(rgb, field, BACKGROUND_SIGMA * unit)
    best = _strongest_line(contrast, [unit * sigma for sigma in SIGMAS])
    return np.where(field, best, np.float32(0))  # (H, W)


@dataclass(frozen=True)
class VesselMap:
    """A soft map and the vessels in it."""

    soft: np.ndarray  # (H, W) float32, of `vesselness`
    vessels: np.ndarray  # (H, W) bool
    level: float  # vesselness from which a pixel is a vessel


def vessel_map(rgb: np.ndarray, field: np.ndarray, level: float | None = None) -> VesselMap:
    """Vessels of a picture: `vesselness` above a level, without specks.

    Args:
        level: of the photograph that a result is compared with, so that contrast which is lost counts as lost; None
            takes the one that `VESSEL_SHARE` of the field exceeds.
    """
    soft = vesselness(rgb, field)
    if level is None:
        level = float(np.quantile(soft[field], 1 - VESSEL_SHARE))
    pieces, _ = ndimage.label((soft > level) & field, CORNERS)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return VesselMap(soft, sizes[pieces] >= round(SPECK * _unit(field) ** 2), level)


def dice(a: np.ndarray, b: np.ndarray, field: np.ndarray) -> float:
    """Dice of two masks, (H, W) bool, inside the field: 1 if they are equal, empty ones too; 0 if they share nothing.

    >>> a = np.array([[True, True, False]])
    >>> dice(a, np.array([[False, True, True]]), np.ones((1, 3), bool))
    0.5
    """
    total = int((a & field).sum() + (b & field).sum())
    return 2 * int((a & b & field).sum()) / total if total else 1.0


def area_under_curve(soft: np.ndarray, truth: np.ndarray, field: np.ndarray) -> float:
    """Area under the ROC curve of a map, (H, W): the chance that a vessel pixel has the higher value; ties count half.

    ValueError where the truth, (H, W) bool, has only vessels, or none, inside the field.
    """
    vessels, others = (soft[field & mask].astype(np.float64) for mask in (truth, ~truth))
    if not vessels.size or not others.size:
        raise ValueError("the labels show nothing but vessel, or none, inside the field of view")
    return float(stats.mannwhitneyu(vessels, others).statistic / (vessels.size * others.size))


def thin_sensitivity(found: np.ndarray, truth: np.ndarray, field: np.ndarray) -> float | None:
    """Share of the centre lines of `truth`'s thin vessels (width at most `THIN` pixels) that `found` covers.

    Masks are (H, W) bool. None where the truth has no thin vessel.
    """
    thin = skeletonize(truth) & field & (widths(truth) <= THIN)
    return float(found[thin].mean()) if thin.any() else None


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


def widths(mask: np.ndarray) -> np.ndarray:
    """Width of a vessel at its centre line: twice the distance to the nearest pixel outside, less one; (H, W)."""
    return 2 * ndimage.distance_transform_edt(mask) - 1


def field_width(field: np.ndarray) -> int:
    """The longer side of the field's box, in pixels."""
    return max(int(np.ptp(np.flatnonzero(field.any(axis)))) + 1 for axis in (0, 1))


def local_contrast(rgb: np.ndarray, field: np.ndarray, sigma: float) -> np.ndarray:
    """Green, or grey, over its background, less one, (H, W) float32.

    Outside the field, the value of the nearest pixel within, faded to 0. `sigma`: blur of the background in pixels.
    """
    green = (rgb if rgb.ndim == 2 else rgb[..., 1]).astype(np.float32)
    weight = ndimage.gaussian_filter(field.astype(np.float32), sigma)
    background = ndimage.gaussian_filter(np.where(field, green, 0), sigma) / np.maximum(weight, 1e-3)
    contrast = np.where(field, green / np.maximum(background, 4) - 1, 0)
    distance, nearest = ndimage.distance_transform_edt(~field, return_indices=True)
    beyond = contrast[tuple(nearest)] * np.exp(-distance / sigma)  # no edge, where the filters would see a line
    return np.where(field, contrast, beyond).astype(np.float32)  # (H, W)


def _strongest_line(contrast: np.ndarray, sigmas: list[float]) -> np.ndarray:
    """Largest response of the oriented filters, at least 0; computed through the Fourier transform, where they are."""
    margin = int(np.ceil(4 * ELONGATION * max(sigmas)))  # the transform is periodic
    height, width = (fft.next_fast_len(side + margin, real=True) for side in contrast.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: contrast.shape[0], : contrast.shape[1]] = contrast
    spectrum = fft.rfft2(padded)  # (height, width / 2 + 1)
    y = (2 * np.pi * fft.fftfreq(height)[:, None]).astype(np.float32)  # radians a pixel
    x = (2 * np.pi * fft.rfftfreq(width)[None]).astype(np.float32)
    best = np.zeros(padded.shape, np.float32)
    for angle in np.arange(ORIENTATIONS) * (np.pi / ORIENTATIONS):
        across = np.cos(angle) * x + np.sin(angle) * y
        along = np.cos(angle) * y - np.sin(angle) * x
        for sigma in sigmas:
            square = (sigma * across) ** 2
            # sigma^1.5 times the second derivative of a Gaussian, transformed: positive on dark lines
            ellipse = np.exp(-0.5 * (square + (ELONGATION * sigma * along) ** 2))
            transfer = -(sigma ** (NORMALISATION - 2)) * square * ellipse
            np.maximum(best, fft.irfft2(transfer * spectrum, s=padded.shape), out=best)
    return best[: contrast.shape[0], : contrast.shape[1]]


def _unit(field: np.ndarray) -> float:
    """How much larger the filters are than for DRIVE, never smaller: a pixel is the finest, small fields are crops."""
    return max(1.0, field_width(field) / REFERENCE_WIDTH)


def reference_vessels(subject: Subject) -> VesselMap:
    """Vessels of the photograph. To be given to `Subject.derive`."""
    return vessel_map(subject.hr, subject.field)


def result_vessels(result: Result) -> VesselMap:
    """Vessels of the result, by the photograph's level. To be given to `Result.derive`."""
    level = result.subject.derive(reference_vessels).level
    return vessel_map(result.sr, result.subject.field, level)


@metric(
    Score("vessel_dice", "vessels", plotted=True, note="Dice of the vessels found in the result and the reference"),
    Score("vessel_thin", "thin", plotted=True, note=f"share found of its centre lines up to {THIN:g} pixels wide"),
    Score("label_dice", "label Dice", plotted=True, note="vessels found against an observer's"),
    Score("label_auc", "label AUC", 4, plotted=True, note="area under the ROC curve, against the same"),
    Score("label_thin", "label thin"),
    protocol={
        "vessels": f"green channel over its background; oriented second derivatives of Gaussians, {ORIENTATIONS} "
        f"directions, sigma {', '.join(map(str, SIGMAS))} pixels in a field of {REFERENCE_WIDTH}; a vessel is what "
        f"exceeds the level of the strongest {VESSEL_SHARE:.0%} of the photograph's field, without specks"
    },
)
def vessels(result: Result) -> Scores:
    found, subject = result.derive(result_vessels), result.subject
    field, own, label = subject.field, subject.derive(reference_vessels).vessels, subject.observed.vessels
    scores: Scores = {} if label is None else {"label_auc": area_under_curve(found.soft, label, field)}
    for name, truth in (("vessel", own), ("label", label)):
        if truth is not None:
            scores[f"{name}_dice"] = dice(found.vessels, truth, field)
            scores[f"{name}_thin"] = thin_sensitivity(found.vessels, truth, field)
    return scores


@metric(
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
)  # fmt: skip
def vessel_tree(result: Result) -> Scores:
    field, subject = result.subject.field, result.subject
    found, own = result.derive(result_vessels).vessels, subject.derive(reference_vessels).vessels
    number, length = breaks(found, own, field)
    millimetres = length * FIELD_MM / field_width(field)
    return {
        "vessel_cldice": centreline_dice(found, own, field),
        "vessel_breaks": number / millimetres if length else None,
        "vessel_calibre": calibre_error(found, own, field),
    }
