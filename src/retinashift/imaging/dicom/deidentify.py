"""De-identification of DICOM headers: attributes that may stay are listed; all others are removed.

Stricter than the Basic Application Level Confidentiality Profile (PS3.15, annex E), which lists what to remove: a list
of what may stay does not leak attributes that a later edition or a camera's maker adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinashift.imaging.dicom.derived import coded, new_uid
from retinashift.imaging.photograph import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

KEPT = (
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
"""Attributes of the first level that stay."""
KEPT_IN_SEQUENCES = (
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


def deidentify(source: Dataset) -> Dataset:
    """A header without the person: UIDs are replaced, equal ones by equal ones; dates and names are removed."""
    if str(source.get("BurnedInAnnotation", "")).upper() == "YES":
        raise ImageError("DICOM with annotations burned into its pixels cannot be de-identified here; crop them first")
    result = _kept(source, KEPT)
    result.file_meta = source.file_meta
    for name in (name for name in _UIDS if name in source):
        setattr(result, name, new_uid("deidentified", str(source[name].value)))
    for name in _EMPTIED:
        setattr(result, name, None)
    for name, value in _DUMMIES.items():
        if name in source:
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
        items = [_kept(item, KEPT_IN_SEQUENCES) for item in element.value] if element.VR == "SQ" else None
        result.add_new(element.tag, element.VR, element.value if items is None else items)
    return result
