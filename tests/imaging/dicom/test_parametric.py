"""The map of uncertainty as DICOM: valid, readable by others, in the unit it says, beside the picture it is about."""

import io

import highdicom
import numpy as np
import pydicom
import pytest

from builders.dicom import photography, written
from builders.dicom_standard import complaints
from retinashift.imaging.dicom.derived import deidentify
from retinashift.imaging.dicom.parametric import encode_with_map
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import find_provenance, with_metadata
from retinashift.imaging.provenance import Provenance

RECORD = Provenance(4, "c" * 64, 4, 7, "1" * 64, ensemble=2)
GROUPS = {
    "PixelMeasuresSequence", "FrameAnatomySequence", "PixelValueTransformationSequence", "FrameVOILUTSequence",
    "RealWorldValueMappingSequence", "ParametricMapFrameTypeSequence", "DerivationImageSequence",
}  # fmt: skip
"""Shared functional groups that table A.75-2 of PS3.3 asks for."""


@pytest.fixture
def mapped(retina):
    """The derived object and the map of a photograph."""

    def make(dtype=np.uint8, header=lambda header: header, rows=128, **changes):
        pixels = retina[:32, :24].astype(dtype)
        photograph = decode_dicom(written(photography(pixels, **changes)), 10**6)
        object.__setattr__(photograph, "dicom", header(photograph.dicom))
        large = np.repeat(np.repeat(photograph.pixels, 4, 0), 4, 1)
        result = with_metadata("a.dcm", large, like=photograph, scale=4, provenance=RECORD)
        return encode_with_map(result, sigma()[:rows], "spread of samples")

    return make


def sigma():
    return np.random.default_rng(0).random((128, 96), np.float32) * 0.1


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_maps_are_valid_and_have_every_group_that_a_map_must_have(mapped, dtype):
    _, data = mapped(dtype)
    assert complaints(data) == []
    ds = read(data)
    assert set(ds.SharedFunctionalGroupsSequence[0].dir()) == GROUPS
    assert ds.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].DimensionIndexValues == 1
    del ds.ContentQualification, ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].LUTLabel
    buffer = io.BytesIO()
    ds.save_as(buffer)
    assert len(complaints(buffer.getvalue())) == 2


@pytest.mark.parametrize(("changes", "levels"), [({}, 255), ({"BitsStored": 12, "HighBit": 11}, 4095)])
def test_the_real_world_value_is_the_deviation_in_levels_of_the_result(mapped, changes, levels):
    _, data = mapped(np.uint16 if changes else np.uint8, **changes)
    ds = read(data)
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    stored = ds.pixel_array
    assert (stored.min() >= 0, stored.max() <= mapping.RealWorldValueLastValueMapped) == (True, True)
    found = stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    assert np.abs(found - sigma() * levels).max() <= 0.51 * levels / 65535
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Standard Deviation"
    assert mapping.LUTExplanation == "spread of samples"


def test_highdicom_reads_the_same_numbers(mapped):
    _, data = mapped()
    image = highdicom.pm.ParametricMap.from_dataset(read(data))
    found = image.get_frame(1, apply_real_world_transform=True)
    assert np.abs(found - sigma() * 255).max() <= 0.51 * 255 / 65535


def test_patient_study_and_pixels_are_those_of_the_result_and_it_and_its_source_are_named(mapped):
    result, data = mapped()
    ds, about = read(data), read(result)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "Rows", "Columns", "Modality"):
        assert ds[name].value == about[name].value
    assert len({ds.SOPInstanceUID, about.SOPInstanceUID, "1.2.3.1"}) == 3
    assert len({ds.SeriesInstanceUID, about.SeriesInstanceUID, "1.2.3.3"}) == 3
    groups = ds.SharedFunctionalGroupsSequence[0]
    assert groups.PixelMeasuresSequence[0].PixelSpacing == about.PixelSpacing == [0.003, 0.0025]
    assert groups.FrameAnatomySequence[0].FrameLaterality == "R"
    named = [item.ReferencedSOPInstanceUID for item in groups.DerivationImageSequence[0].SourceImageSequence]
    assert named == ["1.2.3.1", about.SOPInstanceUID]
    listed = {
        item.SeriesInstanceUID: item.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        for item in ds.ReferencedSeriesSequence
    }
    assert listed == {"1.2.3.3": "1.2.3.1", about.SeriesInstanceUID: about.SOPInstanceUID}
    assert find_provenance(data, "map") == RECORD
    assert data[:128] == bytes(128)


def test_the_same_work_gives_the_same_bytes(mapped):
    assert mapped()[1] == mapped()[1]


def test_a_map_of_a_de_identified_photograph_names_nobody(mapped):
    _, data = mapped(header=deidentify)
    assert complaints(data) == []
    assert not [value for value in (b"Doe", b"1.2.3.", b"P1", b"Roe", b"20200101") if value in data]


def test_a_photograph_without_spacing_or_side_has_a_map_that_claims_none(mapped):
    _, data = mapped(PixelSpacing=None, ImageLaterality=None)
    groups = read(data).SharedFunctionalGroupsSequence[0]
    assert "PixelSpacing" not in groups.PixelMeasuresSequence[0]
    assert groups.FrameAnatomySequence[0].FrameLaterality == "U"


def test_a_map_of_another_size_is_refused(mapped):
    with pytest.raises(ValueError, match="for a result of"):
        mapped(rows=127)
