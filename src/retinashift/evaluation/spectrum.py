"""Sharpness by frequency: the power of a result relative to the photograph."""

import numpy as np
from scipy import fft

from retinashift.evaluation.scores import Metric, Result, Score, Scores, Subject
from retinashift.evaluation.similarity import luma_studio

BANDS = 32
"""Rings of equal width from 0 to half a cycle a pixel."""


def radial_power(pixels: np.ndarray, field: np.ndarray) -> np.ndarray | None:
    """Mean power of the luma in rings of frequency.

    It is taken in a square inside the circle that fills the field's box, so that the edge of the aperture stays out.
    The mean is subtracted, and a Hann window fades the border.

    Args:
        pixels: (H, W, 3) or (H, W), uint8.
        field: (H, W) bool.

    Returns:
        (BANDS,) float64; ring i is around (i + 0.5) / (2 BANDS) cycles a pixel. None where the square is less than 64
        pixels wide.
    """
    rows, columns = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    side = int(min(np.ptp(rows), np.ptp(columns)) / np.sqrt(2))
    top, left = ((line[0] + line[-1] - side) // 2 for line in (rows, columns))
    square = luma_studio(pixels[top : top + side + 1, left : left + side + 1])
    if min(square.shape) < 2 * BANDS:
        return None
    height, width = square.shape
    faded = (square - square.mean()) * np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(fft.fft2(faded)) ** 2  # (h, w)
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width))
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS)  # the corners, beyond half a cycle, come last
    sums, counts = (np.bincount(ring.ravel(), weights, BANDS + 1)[:BANDS] for weights in (power.ravel(), None))
    return sums / counts


def sharpness(sr: np.ndarray, hr: np.ndarray, scale: int) -> float:
    """`radial_power` of a result over the photograph's in the octave above what the input can hold.

    Below 1 the result is blurred; above 1 it is sharper or noisier than the photograph; nan if the photograph has
    nothing there. The number does not tell whether the detail is in its place.

    Args:
        sr, hr: (BANDS,).
        scale: of the super-resolution; the octave is 1/(2 scale) to 1/scale cycles a pixel, at most one half.
    """
    frequency = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    octave = (frequency >= 0.5 / scale) & (frequency < max(1 / scale, 0.5 / scale + 1 / BANDS))
    weight = frequency[octave]  # a ring's area
    reference = float((hr[octave] * weight).sum())
    return float((sr[octave] * weight).sum()) / reference if reference else float("nan")


def reference_power(subject: Subject) -> np.ndarray | None:
    """`radial_power` of the photograph. To be given to `Subject.derive`."""
    return radial_power(subject.hr, subject.field)


def result_power(result: Result) -> np.ndarray | None:
    """`radial_power` of the result. To be given to `Result.derive`."""
    return radial_power(result.sr, result.subject.field)


def _measure(result: Result) -> Scores:
    power, reference = result.derive(result_power), result.subject.derive(reference_power)
    if power is None or reference is None:
        return {}
    return {"sharpness": sharpness(power, reference, result.subject.scale)}


NOTE = (
    "power over the reference's in the octave above the input's Nyquist frequency; luma, inner square of the field, "
    "Hann window"
)
SPECTRUM = Metric((Score("sharpness", "sharpness", 2, "none", note=NOTE),), _measure)
