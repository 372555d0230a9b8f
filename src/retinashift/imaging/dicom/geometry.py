"""Lengths, places and frames in a DICOM header, made true of one of its frames, upscaled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ObjectPixelSpacingInCenterOfBeam")
_ANGLES_A_PIXEL = ("XCoordinatesCenterPixelViewAngle", "YCoordinatesCenterPixelViewAngle")
_MAP = "TwoDimensionalToThreeDimensionalMapSequence"
_FIRST = ("LeftVerticalEdge", "UpperHorizontalEdge")
_LAST = ("RightVerticalEdge", "LowerHorizontalEdge")
_FRAME_TIME = 0x00181063
_BORDERS = ("Shutter", "Collimator")
_A_VALUE_A_FRAME = (
    "FrameLabelVector", "FramePrimaryAngleVector", "FrameSecondaryAngleVector", "SliceLocationVector",
    "PageNumberVector", "DisplayWindowLabelVector", "ImageTranslationVector", "RWaveTimeVector",
)  # fmt: skip
_ABOUT_OTHER_FRAMES = (
    "FrameNumbersOfInterest", "FrameOfInterestDescription", "FrameOfInterestType", "StartTrim", "StopTrim",
    "PreferredPlaybackSequencing", "EffectiveDuration", "MaskSubtractionSequence",
)  # fmt: skip


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
    frames = int(dataset.get("NumberOfFrames") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups and len(groups) > 1:
        dataset.PerFrameFunctionalGroupsSequence = list(groups[frame - 1 : frame])
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = 1
    if "FrameTimeVector" in dataset:
        dataset.FrameTimeVector = [0]  # since the frame before, of which there is none
    pointer = dataset.get("FrameIncrementPointer")
    pointed = pointer if isinstance(pointer, Iterable) else [pointer]
    if pointer is not None and not any(tag in dataset for tag in pointed):
        dataset.FrameIncrementPointer, dataset.FrameTime = _FRAME_TIME, 0
    if frames == 1:
        return
    for name in (name for name in _A_VALUE_A_FRAME if name in dataset):
        values = dataset[name].value
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) % frames:
            continue
        each = len(values) // frames
        setattr(dataset, name, list(values[each * (frame - 1) : each * frame]))
    if _MAP in dataset:
        mine = [item for item in dataset[_MAP].value if frame in numbers(item.get("ReferencedFrameNumbers"))]
        for item in mine:
            item.ReferencedFrameNumbers = 1
        setattr(dataset, _MAP, mine)
    for name in (name for name in _ABOUT_OTHER_FRAMES if name in dataset):
        delattr(dataset, name)
    if "RepresentativeFrameNumber" in dataset:
        dataset.RepresentativeFrameNumber = 1


def enlarge_lengths(dataset: Dataset, scale: float, across: float | None = None) -> None:
    """Divide spacings by the scale, and move borders of what is shown with the pixels. Changed in place.

    Args:
        scale: of the rows. across: of the columns, which rounding can make another; None is the same.

    Source: PS3.3 C.7.6.11 (display shutter), C.7.6.16.2.1 (pixel measures), C.8.17.11 and C.8.17.12.1.2 (wide field);
    rows and columns are counted from 1.
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
        for border in _BORDERS:
            _enlarge_border(place, border, scale)


def numbers(value: object) -> list[float]:
    """The numbers of an element that may have none, one or several; ValueError for text that is none."""
    if value is None or value == "":
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [float(v) for v in value] if several else [float(value)]  # type: ignore[arg-type,attr-defined]


def decimal(value: float) -> str:
    """At most 16 characters, as the value representation DS allows."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def _enlarge_border(place: Dataset, border: str, scale: float) -> None:
    middles = (f"CenterOfCircular{border}", f"VerticesOfThePolygonal{border}")
    moved = {
        **{border + edge: lambda v: (v - 1) * scale + 1 for edge in _FIRST},
        **{border + edge: lambda v: v * scale for edge in _LAST},
        f"RadiusOfCircular{border}": lambda v: v * scale,
        **{name: lambda v: (v - 0.5) * scale + 0.5 for name in middles},
    }
    for name, move in moved.items():
        if name in place and place[name].value not in (None, ""):
            value = place[name].value
            many = hasattr(value, "__len__") and not isinstance(value, str)
            setattr(place, name, [round(move(int(v))) for v in value] if many else round(move(int(value))))


def _groups_of(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    shared, each = (dataset.get(name) or [] for name in _GROUPS)
    yield from shared[:1]
    yield from each[frame - 1 : frame]


def _within(dataset: Dataset) -> Iterator[Dataset]:
    """The items of the sequences in functional groups."""
    for name in _GROUPS:
        for group in dataset.get(name) or []:
            for element in group:
                if element.VR == "SQ":
                    yield from element.value
