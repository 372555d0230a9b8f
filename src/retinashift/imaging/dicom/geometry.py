"""Lengths, places and frames in a DICOM header, made true of one of its frames, upscaled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ObjectPixelSpacingInCenterOfBeam")
_ANGLES_A_PIXEL = ("XCoordinatesCenterPixelViewAngle", "YCoordinatesCenterPixelViewAngle")
_MAP = "TwoDimensionalToThreeDimensionalMapSequence"
_FRAME_TIME = 0x00181063
_ABOUT_SEVERAL_FRAMES = (
    "FrameTimeVector", "FrameLabelVector", "FramePrimaryAngleVector", "FrameSecondaryAngleVector",
    "SliceLocationVector", "PageNumberVector", "DisplayWindowLabelVector", "ImageTranslationVector", "RWaveTimeVector",
    "FrameNumbersOfInterest", "FrameOfInterestDescription", "FrameOfInterestType", "RepresentativeFrameNumber",
    "StartTrim", "StopTrim", "PreferredPlaybackSequencing", "EffectiveDuration", "MaskSubtractionSequence",
)  # fmt: skip
_BORDERS = re.compile("Shutter|Collimator|Polygonal")
"""Keywords of what hides the border of the picture as it was, counted in its pixels."""


def pixel_spacing(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Millimetres down and across a pixel of that frame, from 1; None where the header has none that is possible."""
    for place in (dataset, *_groups_of(dataset, frame)):
        for measures in (place, *(place.get("PixelMeasuresSequence") or [])):
            values = numbers(measures.get("PixelSpacing"))
            if len(values) == 2 and all(1e-6 < value < 1e3 for value in values):
                return values[0], values[1]
    return None


def keep_frame(dataset: Dataset, frame: int) -> None:
    """Make a header of many frames one of a single frame, counted from 1. Changed in place."""
    if groups := dataset.get("PerFrameFunctionalGroupsSequence"):
        dataset.PerFrameFunctionalGroupsSequence = list(groups[frame - 1 : frame] if len(groups) > 1 else groups)
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = 1
    if "FrameIncrementPointer" in dataset:  # to the time since the frame before, of which there is none
        dataset.FrameIncrementPointer, dataset.FrameTime = _FRAME_TIME, 0
    for name in (name for name in _ABOUT_SEVERAL_FRAMES if name in dataset):
        delattr(dataset, name)
    if len(dataset.get(_MAP) or []) > 1:
        mine = [item for item in dataset[_MAP].value if frame in numbers(item.get("ReferencedFrameNumbers"))]
        for item in mine:
            item.ReferencedFrameNumbers = 1
        setattr(dataset, _MAP, mine)


def enlarge_lengths(dataset: Dataset, scale: float, across: float | None = None) -> None:
    """Divide spacings by the scale, and remove borders of what is shown. Changed in place.

    Args:
        scale: of the rows. across: of the columns, which rounding can make another; None is the same.

    Source: PS3.3 C.7.6.16.2.1 (pixel measures), C.8.17.11 and C.8.17.12.1.2 (wide field).
    """
    for name in (name for name in _ANGLES_A_PIXEL if dataset.get(name)):
        setattr(dataset, name, float(dataset[name].value) / scale)
    for item in dataset.get(_MAP) or []:
        points = np.frombuffer(item.get("TwoDimensionalToThreeDimensionalMapData") or b"", "<f4").reshape(-1, 5).copy()
        points[:, :2] *= scale  # place in the picture, from its edge; the others are places in the eye
        item.TwoDimensionalToThreeDimensionalMapData = points.tobytes()
    for place in (dataset, *_within(dataset)):
        for name in (name for name in _SPACINGS if place.get(name)):
            values = numbers(place[name].value)
            factors = (scale, across or scale) if len(values) == 2 else (scale,) * len(values)
            setattr(place, name, [decimal(value / by) for value, by in zip(values, factors, strict=True)])
        for name in list(filter(_BORDERS.search, place.dir())):
            delattr(place, name)


def numbers(value: object) -> list[float]:
    """The numbers of an element that may have none, one or several; ValueError for text that is none."""
    if value is None or value == "":
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [float(v) for v in value] if several else [float(value)]  # type: ignore[arg-type,attr-defined]


def decimal(value: float) -> str:
    """At most 16 characters, as the value representation DS allows."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def _groups_of(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    shared, each = (dataset.get(name) or [] for name in _GROUPS)
    yield from shared[:1]
    yield from each[frame - 1 : frame]


def _within(dataset: Dataset) -> Iterator[Dataset]:
    """The functional groups and the items of the sequences in them."""
    for group in (group for name in _GROUPS for group in dataset.get(name) or []):
        yield group
        yield from (item for element in group if element.VR == "SQ" for item in element.value)
