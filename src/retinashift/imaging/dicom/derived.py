"""A derived DICOM object out: patient and study of its source, what was done, and lengths true of the result."""

from __future__ import annotations

import copy
import io
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from retinashift.imaging.dicom.frames import LOSSY_SYNTAXES, frames_of
from retinashift.imaging.dicom.read import GROUPS, decimal, numbers, put_record, require_pydicom
from retinashift.imaging.photograph import ImageError, Photograph
from retinashift.imaging.provenance import parse_line

if TYPE_CHECKING:
    from pydicom import Dataset

OP8, OP16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
_NO_LONGER_TRUE = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "DigitalSignaturesSequence", "MACParametersSequence", "InstanceCreationDate",
    "InstanceCreationTime", "InstanceCreatorUID", "SeriesDate", "SeriesTime", "FrameAcquisitionDateTime",
)  # fmt: skip
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


def new_uid(*facts: str) -> str:
    """A UID that is the same for the same facts (UUID-derived, PS3.5 annex B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(facts)).int}"


def encode_dicom(photograph: Photograph) -> bytes:
    """The file of the derived object; the same bytes each time. Errors as in `derive` and `write_object`."""
    return write_object(derive(photograph))


def derive(photograph: Photograph) -> Dataset:
    """The object, pixels included, that a result with the header of its source makes. ImageError if there is none."""
    require_pydicom()
    source = photograph.dicom
    if source is None:
        raise ImageError("DICOM is written only from DICOM, whose patient and study it keeps; write PNG or TIFF")
    if not source.get("SOPInstanceUID"):
        raise ImageError("the source has no SOPInstanceUID, by which its result must name it; write PNG or TIFF")
    dataset = copy.deepcopy(source)
    for name in _NO_LONGER_TRUE:
        if name in dataset:
            delattr(dataset, name)
    for tag in [tag for tag in dataset.keys() if 0x6000 <= tag.group <= 0x60FF]:
        del dataset[tag]  # overlays, which are drawn on the pixels of the source
    keep_frame(dataset, photograph.frame)
    height, width = photograph.pixels.shape[:2]
    enlarge_lengths(dataset, height / dataset.Rows, width / dataset.Columns)
    _put_pixels(dataset, photograph)
    _put_identity(dataset, source, photograph)
    _put_derivation(dataset, source, photograph)
    return dataset


def write_object(dataset: Dataset) -> bytes:
    """A file in Explicit VR Little Endian, uncompressed. ImageError for a value that cannot be written."""
    pydicom = require_pydicom()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.preamble = bytes(128)  # what stands there in the source can be a program
    buffer = io.BytesIO()
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises whatever a value leads it to
        raise ImageError(f"the DICOM header cannot be written ({' '.join(str(error).split())})") from None
    return buffer.getvalue()


def _put_pixels(dataset: Dataset, photograph: Photograph) -> None:
    """Pixels in as many stored bits as the source has, colour as RGB."""
    pixels, grey = photograph.pixels, photograph.channels == 1
    kind = str(dataset.PhotometricInterpretation)
    if grey != kind.startswith("MONOCHROME"):
        raise ImageError(f"{photograph.channels} channels do not fit the {kind} of the source")
    bits = int(dataset.BitsStored) if kind != "PALETTE COLOR" else 8 * pixels.itemsize
    for name in () if grey else list(dataset.dir("PaletteColor")):
        delattr(dataset, name)
    if kind == "MONOCHROME1":
        pixels = ~pixels
    full, top = np.iinfo(pixels.dtype).max, 2**bits - 1
    if top != full:
        pixels = np.rint(pixels * (top / full)).astype(pixels.dtype)
    del dataset.file_meta  # of the source
    pixels = pixels[None] if "NumberOfFrames" in dataset else pixels  # which is kept, as 1
    dataset.set_pixel_data(pixels, kind if grey else "RGB", bits, generate_instance_uid=False)


def _put_identity(dataset: Dataset, source: Dataset, photograph: Photograph) -> None:
    """A new instance of a new series; patient and study stay."""
    record, frame = parse_line(photograph.provenance), str(photograph.frame)
    work = "" if record is None else f"{record.checkpoint} {record.steps} {record.seed} {record.scale}"
    dataset.SOPInstanceUID = new_uid("instance", str(source.SOPInstanceUID), frame, photograph.provenance)
    dataset.SeriesInstanceUID = new_uid("series", str(source.get("SeriesInstanceUID", "")), work)
    dataset.SeriesNumber = None
    if str(dataset.SOPClassUID) == OP8 and photograph.pixels.itemsize == 2:
        dataset.SOPClassUID = OP16  # a palette of 16 bit


def _put_derivation(dataset: Dataset, source: Dataset, photograph: Photograph) -> None:
    """Source: PS3.3 C.7.6.1.1.2 (image type), C.7.6.1.1.3 (derivation), C.12.1.1.5 (contributing equipment)."""
    from pydicom import Sequence

    from retinashift import __version__

    record = parse_line(photograph.provenance)
    factor = f"{dataset.Rows / source.Rows if record is None else record.scale:.4g}"
    dataset.ImageType = ["DERIVED", *(list(source.get("ImageType") or [])[1:] or ["PRIMARY"])]
    text = f"Super-resolved x{factor} by RetinaShift {__version__}"
    dataset.SeriesDescription = text[:64]
    dataset.DerivationDescription = f"{text}: fine detail is estimated, not observed. Research use only."
    dataset.DerivationCodeSequence = [coded("113085", "Spatial resampling")]
    dataset.SourceImageSequence = [source_image(source)]
    if frames_of(source) > 1:
        dataset.SourceImageSequence[0].ReferencedFrameNumber = photograph.frame
    equipment = item(
        PurposeOfReferenceCodeSequence=[coded("109103", "Modifying Equipment")],
        Manufacturer="RetinaShift",
        ManufacturerModelName="RetinaShift",
        SoftwareVersions=__version__,
        ContributionDescription=dataset.DerivationDescription,
    )
    dataset.ContributingEquipmentSequence = Sequence([*dataset.get("ContributingEquipmentSequence", []), equipment])
    syntax = str(source.file_meta.TransferSyntaxUID)
    if syntax in LOSSY_SYNTAXES and dataset.get("LossyImageCompression") != "01":
        dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", LOSSY_SYNTAXES[syntax]
    elif not dataset.get("LossyImageCompression"):
        dataset.LossyImageCompression = "00"
    put_record(dataset, photograph.provenance)


def coded(value: str, meaning: str, scheme: str = "DCM") -> Any:
    """An item of a code sequence."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def instance(image: Dataset) -> dict[str, Any]:
    """The attributes by which an item refers to an object."""
    return {"ReferencedSOPClassUID": image.SOPClassUID, "ReferencedSOPInstanceUID": image.SOPInstanceUID}


def source_image(image: Dataset) -> Any:
    """An item that names the object from which another is derived."""
    purpose = coded("121322", "Source image for image processing operation")
    return item(**instance(image), PurposeOfReferenceCodeSequence=[purpose])


def item(**values: Any) -> Any:
    """A data set of these attributes."""
    from pydicom import Dataset

    result = Dataset()
    for name, value in values.items():
        setattr(result, name, value)
    return result


def keep_frame(dataset: Dataset, frame: int) -> None:
    """Make a header of many frames one of a single frame, counted from 1. Changed in place."""
    frames = frames_of(dataset)
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


def enlarge_lengths(dataset: Dataset, scale: float, across: float) -> None:
    """Divide spacings by the scale of rows and columns, which rounding can make two, and move borders of what is shown.

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
            factors = (scale, across) if len(values) == 2 else (scale,) * len(values)
            setattr(place, name, [decimal(value / by) for value, by in zip(values, factors, strict=True)])
        for border in _BORDERS:
            _enlarge_border(place, border, scale)


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


def _within(dataset: Dataset) -> Iterator[Dataset]:
    """The items of the sequences in functional groups."""
    for name in GROUPS:
        for group in dataset.get(name) or []:
            for element in group:
                if element.VR == "SQ":
                    yield from element.value
