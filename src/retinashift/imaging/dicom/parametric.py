"""Uncertainty as a DICOM Parametric Map (PS3.3 A.75), of the patient, study and pixels of the result that it is about.

Made with pydicom alone: highdicom, which makes such maps, takes no ophthalmic photograph for a source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinashift.imaging.dicom.derived import coded, derive, instance, item, new_uid, source_image, write_object
from retinashift.imaging.dicom.read import decimal, pixel_spacing, put_record, record_of
from retinashift.imaging.figures import BRIGHTEST, FULL_SCALE, stored_deviations
from retinashift.imaging.photograph import Photograph

if TYPE_CHECKING:
    from pydicom import Dataset

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_KEPT = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID", "IssuerOfPatientID",
    "PatientBirthDate", "PatientSex", "PatientAge", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "ContentDate", "ContentTime", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation",
)  # fmt: skip
"""Attributes of patient, study and photograph that the map shares."""
_FRAME_TYPE = ["DERIVED", "PRIMARY", "STATIC", "STD_DEVIATION"]


def encode_with_map(photograph: Photograph, sigma: np.ndarray, explanation: str) -> tuple[bytes, bytes]:
    """The files of a result and of the map of its uncertainty; the same bytes each time. Errors as in `encode_dicom`.

    The map has unsigned 16 bit, as `encode_map` stores them. The real-world value of a stored one is the standard
    deviation in levels of the result's stored pixels, 0 to 2**BitsStored - 1; it has no dimension (UCUM 1).

    Args:
        photograph: the result, (H, W) or (H, W, C), with the header of its source.
        sigma: (H, W), in shares of full scale.
        explanation: what the values mean, at most 64 characters.
    """
    about = derive(photograph)
    assert photograph.dicom is not None  # or else `derive` raises
    if sigma.shape != (about.Rows, about.Columns):
        raise ValueError(f"a map of {sigma.shape} for a result of {(about.Rows, about.Columns)}")
    dataset = item(ContentDate="19000101", ContentTime="000000")  # which a map must have
    dataset.update({about[name].tag: about[name] for name in _KEPT if name in about})
    _put_identity(dataset, about, photograph.dicom)
    _put_image(dataset, sigma)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(about, explanation)]
    dataset.PerFrameFunctionalGroupsSequence = [item(FrameContentSequence=[item(DimensionIndexValues=1)])]
    put_record(dataset, record_of(about))
    return write_object(about), write_object(dataset)


def _put_identity(dataset: Dataset, about: Dataset, source: Dataset) -> None:
    """A new instance in a series of its own; equipment and record are copied from the result."""
    uid, equipment = str(about.SOPInstanceUID), about.ContributingEquipmentSequence[-1]
    dataset.SOPClassUID, dataset.SOPInstanceUID = PARAMETRIC_MAP, new_uid("parametric map", uid)
    dataset.SeriesInstanceUID = new_uid("series of maps", str(about.SeriesInstanceUID))
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = new_uid("frame of reference", uid), None
    dataset.Modality = about.get("Modality") or "OT"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Uncertainty of super-resolution"
    dataset.Manufacturer = dataset.ManufacturerModelName = equipment.Manufacturer
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = equipment.SoftwareVersions, "none"
    dataset.ReferencedSeriesSequence = [
        item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedInstanceSequence=[item(**instance(image))])
        for image in (about, source)
        if "SeriesInstanceUID" in image
    ]


def _put_image(dataset: Dataset, sigma: np.ndarray) -> None:
    dataset.ImageType, dataset.ContentQualification = _FRAME_TYPE, "RESEARCH"
    dataset.ContentLabel, dataset.ContentDescription = "UNCERTAINTY", "Standard deviation of a super-resolved picture"
    dataset.ContentCreatorName, dataset.AcquisitionContextSequence = None, []
    dataset.RecognizableVisualFeatures = "YES"  # vessels identify people
    dataset.setdefault("BurnedInAnnotation", "NO")
    dataset.PixelPresentation, dataset.PresentationLUTShape = "MONOCHROME", "IDENTITY"
    dataset.set_pixel_data(stored_deviations(sigma)[None], "MONOCHROME2", 16, generate_instance_uid=False)
    organization = new_uid("dimensions", str(dataset.SOPInstanceUID))
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    index = item(DimensionOrganizationUID=organization, DimensionDescriptionLabel="Quantity")
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00409210, 0x00409096  # LUT label, of its mapping
    dataset.DimensionIndexSequence = [index]


def _shared_groups(about: Dataset, explanation: str) -> Dataset:
    """Functional groups that a map must have (PS3.3, table A.75-2), except the frame content."""
    spacing = about.get("PixelSpacing") or [decimal(value) for value in pixel_spacing(about, 1) or ()]
    side = str(about.get("ImageLaterality") or about.get("Laterality") or "U")
    region = about.get("AnatomicRegionSequence") or [coded("81745001", "Eye", "SCT")]
    quantity = item(ValueType="CODE", ConceptNameCodeSequence=[coded("246205007", "Quantity", "SCT")])
    quantity.ConceptCodeSequence = [coded("386136009", "Standard Deviation", "SCT")]
    mapping = item(LUTLabel="SIGMA", LUTExplanation=explanation, QuantityDefinitionSequence=[quantity])
    mapping.MeasurementUnitsCodeSequence = [coded("1", "no units", "UCUM")]
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, (2**about.BitsStored - 1) / FULL_SCALE
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", FULL_SCALE)
    shown = FULL_SCALE * BRIGHTEST / 255  # as far as the overlay's colours go
    references = [*about.SourceImageSequence, source_image(about)]
    references[-1].SpatialLocationsPreserved = "YES"
    derivation = item(DerivationDescription="Standard deviation over samples of the enlarged picture")
    derivation.DerivationCodeSequence = [coded("113085", "Spatial resampling")]
    derivation.SourceImageSequence = references
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=spacing) if spacing else item()],
        FrameAnatomySequence=[item(AnatomicRegionSequence=region, FrameLaterality=side)],
        PixelValueTransformationSequence=[item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")],
        FrameVOILUTSequence=[item(WindowCenter=round(shown / 2), WindowWidth=round(shown))],
        RealWorldValueMappingSequence=[mapping],
        ParametricMapFrameTypeSequence=[item(FrameType=_FRAME_TYPE)],
        DerivationImageSequence=[derivation],
    )
