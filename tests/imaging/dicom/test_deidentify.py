"""De-identified headers: a list of all that stays, and nothing of the person in the bytes."""

import io

import numpy as np
import pydicom
import pytest

from builders.dicom import photography, written
from retinashift.imaging.dicom.derived import deidentify
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import encode_image
from retinashift.imaging.photograph import ImageError, Photograph

STAYS = set(
    (
        "AcquisitionDeviceTypeCodeSequence AcquisitionTimeSynchronized AnatomicRegionSequence BitsAllocated "
        "BitsStored BurnedInAnnotation Columns DetectorType EmmetropicMagnification FrameIncrementPointer "
        "FrameTime HighBit HorizontalFieldOfView IlluminationTypeCodeSequence ImageLaterality "
        "ImagePathFilterTypeStackCodeSequence ImageType InstanceNumber IntraOcularPressure LensesCodeSequence "
        "LightPathFilterTypeStackCodeSequence LossyImageCompression Manufacturer ManufacturerModelName Modality "
        "NumberOfFrames PatientEyeMovementCommanded PatientOrientation PhotometricInterpretation "
        "PixelRepresentation PixelSpacing PlanarConfiguration PupilDilated RefractiveStateSequence Rows "
        "SOPClassUID SamplesPerPixel SoftwareVersions SynchronizationTrigger"
    ).split()
)
CHANGED = set(
    (
        "AccessionNumber AcquisitionDateTime ContentDate ContentTime DeidentificationMethod "
        "DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified PatientBirthDate PatientID "
        "PatientIdentityRemoved PatientName PatientSex ReferringPhysicianName SOPInstanceUID SeriesInstanceUID "
        "SeriesNumber StudyDate StudyID StudyInstanceUID StudyTime SynchronizationFrameOfReferenceUID"
    ).split()
)


@pytest.fixture
def source(retina):
    ds = photography(retina, InstitutionName="Clinic", OperatorsName="Poe^Al", PatientComments="calls at noon")
    ds.AnatomicRegionSequence[0].add_new(0x00090010, "LO", "Doe private in item")
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "Doe private")
    return ds


def test_this_stays_and_nothing_else(source):
    clean = deidentify(decode_dicom(written(source), 10**6).dicom)
    assert {element.keyword for element in clean} == STAYS | CHANGED
    original = decode_dicom(written(source), 10**6).dicom
    for name in STAYS - {"AnatomicRegionSequence"}:
        assert clean[name].value == original[name].value
    assert {element.keyword for element in clean.AnatomicRegionSequence[0]} == {
        "CodeValue", "CodingSchemeDesignator", "CodeMeaning",
    }  # fmt: skip


def test_no_byte_of_the_person_is_left_in_the_file(source):
    photograph = decode_dicom(written(source), 10**6)
    clean = Photograph(photograph.pixels, "DICOM", dicom=deidentify(photograph.dicom))
    data = encode_image("a.dcm", clean)
    secrets = "Doe P1 Roe Poe Clinic noon 1950 2020 101010 S1 A1 77 1.2.3.1 1.2.3.2 1.2.3.3 1.2.3.4".split()
    header = data[: data.index(b"\xe0\x7f\x10\x00")]
    values = " ".join(str(e.value) for e in pydicom.dcmread(io.BytesIO(data)).iterall() if e.VR not in ("UI", "OB"))
    uids = {str(e.value) for e in pydicom.dcmread(io.BytesIO(data)).iterall() if e.VR == "UI"}
    assert [s for s in secrets if s in values.split()] == []
    assert [s for s in ("Doe", "Roe", "Poe", "Clinic", "noon", "19500101", "20200101") if s.encode() in header] == []
    assert uids & set(secrets) == set()
    assert np.array_equal(decode_dicom(data, 10**6).pixels, photograph.pixels)


def test_objects_of_one_study_stay_together(retina):
    files = (written(photography(retina, SOPInstanceUID=uid)) for uid in ("1.2.3.8", "1.2.3.9"))
    one, two = (deidentify(decode_dicom(data, 10**6).dicom) for data in files)
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_names_burned_into_the_pixels_are_not_passed_off_as_removed(retina):
    with pytest.raises(ImageError, match="burned into"):
        deidentify(photography(retina, BurnedInAnnotation="YES"))
