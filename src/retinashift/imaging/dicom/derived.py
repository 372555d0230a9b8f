"""DICOM out: a derived object of its source's patient and study, with lengths true of the result; de-identification."""

from __future__ import annotations

import copy
import io
import uuid
from collections.abc import Iterable, MutableSequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retinashift.imaging.dicom.read import GROUPS, LOSSY, decimal, frames_of, numbers, put_record, require_pydicom
from retinashift.imaging.photograph import ImageError, Photograph

if TYPE_CHECKING:
    from pydicom import Dataset

_OP8, _OP16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
_NO_LONGER_TRUE = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "DigitalSignaturesSequence", "MACParametersSequence", "InstanceCreationDate",
    "InstanceCreationTime", "InstanceCreatorUID", "SeriesDate", "SeriesTime", "FrameAcquisitionDateTime",
)  # fmt: skip
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "ObjectPixelSpacingInCenterOfBeam")
_ANGLES_A_PIXEL = ("XCoordinatesCenterPixelViewAngle", "YCoordinatesCenterPixelViewAngle")
_MAP = "TwoDimensionalToThreeDimensionalMapSequence"
_BORDERS = {
    name.format(border): fixed
    for border in ("Shutter", "Collimator")
    for name, fixed in (
        ("{}LeftVerticalEdge", 1), ("{}UpperHorizontalEdge", 1), ("{}RightVerticalEdge", 0),
        ("{}LowerHorizontalEdge", 0), ("RadiusOfCircular{}", 0), ("CenterOfCircular{}", 0.5),
        ("VerticesOfThePolygonal{}", 0.5),
    )
}  # fmt: skip
"""Borders of what is shown, and which of their values stays where it is, whatever the scale."""
_OF_ONE_FRAME = {"NumberOfFrames": 1, "RepresentativeFrameNumber": 1, "FrameTimeVector": [0]}
_A_VALUE_A_FRAME = (
    "FrameLabelVector", "FramePrimaryAngleVector", "FrameSecondaryAngleVector", "SliceLocationVector",
    "PageNumberVector", "DisplayWindowLabelVector", "ImageTranslationVector", "RWaveTimeVector",
)  # fmt: skip
_ABOUT_OTHER_FRAMES = (
    "FrameNumbersOfInterest", "FrameOfInterestDescription", "FrameOfInterestType", "StartTrim", "StopTrim",
    "PreferredPlaybackSequencing", "EffectiveDuration", "MaskSubtractionSequence",
)  # fmt: skip
_KEPT = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "Modality", "ConversionType", "Manufacturer",
    "ManufacturerModelName", "SoftwareVersions", "AnatomicRegionSequence", "AcquisitionDeviceTypeCodeSequence",
    "IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence", "ImagePathFilterTypeStackCodeSequence",
    "LensesCodeSequence", "DetectorType", "InstanceNumber", "SynchronizationTrigger", "AcquisitionTimeSynchronized",
    "PatientOrientation", "Laterality", "ImageLaterality", "HorizontalFieldOfView", "PatientEyeMovementCommanded",
    "EmmetropicMagnification", "IntraOcularPressure", "PupilDilated", "DegreeOfDilation", "RefractiveStateSequence",
    "MydriaticAgentSequence", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "FrameIncrementPointer", "FrameTime", "FrameTimeVector", "Rows", "Columns", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "PixelAspectRatio", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "BurnedInAnnotation", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "ICCProfile", "ColorSpace", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "PresentationLUTShape", "SamplesPerPixelUsed",
)  # fmt: skip
"""Attributes of the first level that stay in a de-identified header."""
_KEPT_IN_SEQUENCES = (
    "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "AnatomicRegionModifierSequence",
    "SphericalLensPower", "CylinderLensPower", "CylinderAxis", "EmmetropicMagnification", "CylinderSequence",
    "MydriaticAgentConcentration", "MydriaticAgentConcentrationUnitsSequence",
)  # fmt: skip
_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SynchronizationFrameOfReferenceUID")
_EMPTIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "SeriesNumber",
)  # fmt: skip
_DUMMIES = {"ContentDate": "19000101", "ContentTime": "000000", "AcquisitionDateTime": "19000101000000"}


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
        dataset.pop(name, None)
    del dataset[0x60000000:0x61000000]  # overlays, which are drawn on the pixels of the source
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
    pixels = ~pixels if kind == "MONOCHROME1" else pixels
    full, top = np.iinfo(pixels.dtype).max, 2**bits - 1
    if top != full:
        pixels = np.rint(pixels * (top / full)).astype(pixels.dtype)
    del dataset.file_meta  # of the source
    pixels = pixels[None] if "NumberOfFrames" in dataset else pixels  # which is kept, as 1
    dataset.set_pixel_data(pixels, kind if grey else "RGB", bits, generate_instance_uid=False)


def _put_identity(dataset: Dataset, source: Dataset, photograph: Photograph) -> None:
    """A new instance of a new series; patient and study stay."""
    record, frame = photograph.record, str(photograph.frame)
    work = "" if record is None else f"{record.checkpoint} {record.steps} {record.seed} {record.scale}"
    dataset.SOPInstanceUID = new_uid("instance", str(source.SOPInstanceUID), frame, photograph.provenance)
    dataset.SeriesInstanceUID = new_uid("series", str(source.get("SeriesInstanceUID", "")), work)
    dataset.SeriesNumber = None
    if str(dataset.SOPClassUID) == _OP8 and photograph.pixels.itemsize == 2:
        dataset.SOPClassUID = _OP16  # a palette of 16 bit


def _put_derivation(dataset: Dataset, source: Dataset, photograph: Photograph) -> None:
    """Source: PS3.3 C.7.6.1.1.2 (image type), C.7.6.1.1.3 (derivation), C.12.1.1.5 (contributing equipment)."""
    from retinashift import __version__

    scale = photograph.record.scale if photograph.record else dataset.Rows / source.Rows
    dataset.ImageType = ["DERIVED", *(list(source.get("ImageType") or [])[1:] or ["PRIMARY"])]
    text = f"Super-resolved x{scale:.4g} by RetinaShift {__version__}"
    dataset.SeriesDescription = text[:64]
    dataset.DerivationDescription = f"{text}: fine detail is estimated, not observed. Research use only."
    dataset.DerivationCodeSequence = [coded("113085", "Spatial resampling")]
    dataset.SourceImageSequence = [source_image(source)]
    if frames_of(source) > 1:
        dataset.SourceImageSequence[0].ReferencedFrameNumber = photograph.frame
    equipment = item(Manufacturer="RetinaShift", ManufacturerModelName="RetinaShift", SoftwareVersions=__version__)
    equipment.PurposeOfReferenceCodeSequence = [coded("109103", "Modifying Equipment")]
    equipment.ContributionDescription = dataset.DerivationDescription
    dataset.ContributingEquipmentSequence = [*dataset.get("ContributingEquipmentSequence", []), equipment]
    syntax = str(source.file_meta.TransferSyntaxUID)
    if syntax in LOSSY and dataset.get("LossyImageCompression") != "01":
        dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", LOSSY[syntax]
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
    for name, value in _OF_ONE_FRAME.items():
        if name in dataset:
            setattr(dataset, name, value)
    pointer = dataset.get("FrameIncrementPointer")
    pointed = pointer if isinstance(pointer, Iterable) else [pointer]
    if pointer is not None and not any(tag in dataset for tag in pointed):
        dataset.FrameIncrementPointer, dataset.FrameTime = 0x00181063, 0  # the pointer is to FrameTime
    if frames == 1:
        return
    for name in (name for name in _A_VALUE_A_FRAME if name in dataset):
        values = dataset[name].value
        if isinstance(values, MutableSequence) and len(values) % frames == 0:
            each = len(values) // frames
            setattr(dataset, name, list(values[each * (frame - 1) : each * frame]))
    if _MAP in dataset:
        mine = [item for item in dataset[_MAP].value if frame in numbers(item.get("ReferencedFrameNumbers"))]
        for item in mine:
            item.ReferencedFrameNumbers = 1
        setattr(dataset, _MAP, mine)
    for name in _ABOUT_OTHER_FRAMES:
        dataset.pop(name, None)


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
    groups = [group for name in GROUPS for group in dataset.get(name) or []]
    places = [item for group in groups for element in group if element.VR == "SQ" for item in element.value]
    for place in (dataset, *places):
        for name in _SPACINGS:
            if values := numbers(place.get(name)):
                factors = (scale, across) if len(values) == 2 else (scale,) * len(values)
                setattr(place, name, [decimal(value / by) for value, by in zip(values, factors, strict=True)])
        for name, fixed in _BORDERS.items():
            if values := numbers(place.get(name)):
                setattr(place, name, [round((value - fixed) * scale + fixed) for value in values])


def deidentify(source: Dataset) -> Dataset:
    """A header without the person: UIDs are replaced, equal ones by equal ones; dates and names are removed.

    Stricter than the Basic Application Level Confidentiality Profile (PS3.15, annex E), which lists what to remove: a
    list of what may stay does not leak attributes that a later edition or a camera's maker adds.
    """
    if str(source.get("BurnedInAnnotation", "")).upper() == "YES":
        raise ImageError("DICOM with annotations burned into its pixels cannot be de-identified here; crop them first")
    result = _kept(source, _KEPT)
    result.file_meta = source.file_meta
    uids = {name: new_uid("deidentified", str(source[name].value)) for name in _UIDS if name in source}
    dummies = {name: value for name, value in _DUMMIES.items() if name in source}
    for name, value in {**uids, **dummies, **dict.fromkeys(_EMPTIED)}.items():
        setattr(result, name, value)
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = "RetinaShift: only listed attributes kept"
    result.DeidentificationMethodCodeSequence = [coded("113100", "Basic Application Confidentiality Profile")]
    result.LongitudinalTemporalInformationModified = "REMOVED"
    return result


def _kept(source: Dataset, names: tuple[str, ...]) -> Dataset:
    """The attributes of these names; in sequences, codes and optical values only."""
    from pydicom import Dataset

    result = Dataset()
    for element in (source[name] for name in names if name in source):
        items = [_kept(item, _KEPT_IN_SEQUENCES) for item in element.value] if element.VR == "SQ" else None
        result.add_new(element.tag, element.VR, element.value if items is None else items)
    return result
