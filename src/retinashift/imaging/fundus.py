"""The field of view: where a fundus photograph shows the retina and not the dark surround of the aperture."""

import numpy as np
from scipy import ndimage

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B: ITU-R BT.601, full range."""
DARKEST_FIELD = 10.0
"""Grey level (of 255) between the surround of most cameras and the darkest retina."""
SURROUND_FACTOR = 1.25
"""Threshold over surround. Chosen so that bicubic scores within 0.13 dB of its PSNR inside DRIVE's own masks; a factor
of 1.6 would leave out the blurred edge of the aperture and score 0.5 dB more."""


def field_of_view(rgb: np.ndarray, *, erode: int = 4) -> np.ndarray:
    """Mask of the retina: luma above a threshold, largest component, holes filled, eroded.

    The threshold is taken from the photograph, because surrounds differ: black in most sets, 7 in DRIVE, up to 40 in
    STARE, which is brighter than some retinas. In frames without a surround everything but the eroded border is field.
    The mask of an entirely dark image is True everywhere.

    Args:
        rgb: (H, W, 3) or (H, W), uint8 or uint16.
        erode: pixels taken off the edge of the field and of the frame, where the aperture is blurred; 0 for none.

    Returns:
        (H, W) bool, never empty: a field too small to be eroded is returned as found.

    Raises:
        ValueError: another shape or dtype, or a negative `erode`.

    >>> eye = np.zeros((30, 30), np.uint8)
    >>> eye[5:25, 5:25] = 90
    >>> int(field_of_view(eye, erode=0).sum()), int(field_of_view(eye).sum())
    (400, 144)
    """
    if erode < 0:
        raise ValueError(f"erode is {erode}; 0 or more pixels are needed")
    luma = _luma(rgb)  # (H, W) in [0, 255]
    components, count = ndimage.label(luma > surround_threshold(luma))
    if count == 0:
        return np.ones(luma.shape, bool)
    largest = 1 + np.argmax(np.bincount(components.ravel())[1:])
    field = ndimage.binary_fill_holes(components == largest)
    if erode:
        inner = ndimage.binary_erosion(field, iterations=erode)  # beyond the frame counts as outside
        field = inner if inner.any() else field
    return field  # (H, W)


def surround_threshold(luma: np.ndarray) -> float:
    """The grey level between surround and field, from the corners of the frame; `luma` is (H, W) in [0, 255].

    The surround's level is the 99th percentile of four corner squares, a twentieth of the shorter side wide. It counts
    as surround only below half of what the frame's brightest quarter reaches; else the field fills the corners.
    """
    side = max(1, min(luma.shape) // 20)
    corners = luma[np.r_[:side, -side:0]][:, np.r_[:side, -side:0]]  # (2 side, 2 side)
    surround, highest = float(np.percentile(corners, 99)), float(np.percentile(luma, 75)) / 2
    return max(DARKEST_FIELD, min(SURROUND_FACTOR * surround, highest)) if surround <= highest else DARKEST_FIELD


def _luma(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 255], 16 bit scaled to it."""
    if rgb.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"the image is {rgb.dtype}; uint8 or uint16 is needed")
    if not (rgb.ndim == 2 or (rgb.ndim == 3 and rgb.shape[2] == 3)) or 0 in rgb.shape:
        raise ValueError(f"the image has shape {rgb.shape}; (H, W) or (H, W, 3) is needed, no side empty")
    grey = rgb.astype(np.float32) if rgb.ndim == 2 else rgb @ np.asarray(LUMA, np.float32)
    return grey / np.float32(257 if rgb.dtype == np.uint16 else 1)
