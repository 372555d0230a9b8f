"""DICOM out: valid by dicom-validator, of the same patient and study, honest about what was done, reproducible."""

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from builders.dicom import photography, written
from builders.dicom_standard import complaints
from retinashift.imaging.dicom.derived import encode_dicom
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import decode_image, encode_image, find_provenance
from retinashift.imaging.photograph import ImageError, Photograph
from retinashift.imaging.provenance import Provenance

LIMIT = 10**6
RECORD = Provenance(4, "c" * 64, 1, 7, "1" * 64, consistency_db=71.2)


def derived(data: bytes, times: int = 4, **changes) -> bytes:
    """The object of the photograph enlarged by repetition."""
    photograph = decode_dicom(data, LIMIT)
    pixels = np.repeat(np.repeat(photograph.pixels, times, 0), times, 1)
    return encode_image("a.dcm", pixels, like=photograph, scale=times, provenance=replace(RECORD, **changes))


def test_the_validator_finds_what_is_missing(retina):
    ds = photography(retina)
    assert complaints(written(ds)) == []
    del ds.BurnedInAnnotation, ds.PatientName
    assert len(complaints(written(ds))) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
def test_derived_objects_are_valid(retina, dtype, grey):
    pixels = np.ascontiguousarray(retina[..., 1] if grey else retina).astype(dtype)
    assert complaints(derived(written(photography(pixels)))) == []


def test_what_was_done_is_told_and_patient_and_study_stay(retina):
    source = written(photography(retina, BurnedInAnnotation="YES"))
    ds = pydicom.dcmread(io.BytesIO(derived(source)))
    assert (ds.PatientName, ds.PatientID, ds.StudyInstanceUID) == ("Doe^Jane", "P1", "1.2.3.2")
    assert ds.SOPInstanceUID != "1.2.3.1"
    assert ds.SeriesInstanceUID != "1.2.3.3"
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "", "COLOR"]
    assert "Super-resolved x4" in ds.DerivationDescription
    assert (ds.DerivationCodeSequence[0].CodeValue, ds.DerivationCodeSequence[0].CodingSchemeDesignator) == (
        "113085", "DCM",
    )  # fmt: skip
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    assert list(ds.PixelSpacing) == [0.003, 0.0025]
    assert (ds.Rows, ds.Columns) == (512, 512)
    assert ds.BurnedInAnnotation == "YES"
    assert find_provenance(derived(source), "a") == RECORD


def test_the_same_work_gives_the_same_bytes_and_other_work_another_object(retina):
    source = written(photography(retina))
    assert derived(source) == derived(source)
    one, other = (pydicom.dcmread(io.BytesIO(derived(source, seed=seed))) for seed in (7, 8))
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_pixels_are_those_of_the_png_route(retina):
    for pixels in (retina, np.ascontiguousarray(retina[..., 1]).astype(np.uint16) * 257):
        source = written(photography(pixels))
        photograph = decode_image(source, "a", LIMIT)
        large = np.repeat(np.repeat(photograph.pixels, 4, 0), 4, 1)
        png = encode_image("a.png", large, like=photograph, scale=4)
        assert np.array_equal(decode_image(png, "a").pixels, decode_image(derived(source), "a").pixels)
        assert decode_image(png, "a").dpi == pytest.approx(decode_image(derived(source), "a").dpi, rel=1e-3)


def test_stored_bits_and_inverted_grey_come_back_as_they_were():
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    ds = photography(grey, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    again = pydicom.dcmread(io.BytesIO(derived(written(ds), times=1)))
    assert np.array_equal(again.pixel_array, grey)


def test_the_preamble_is_zeroed_and_pixel_bound_parts_of_the_source_go(retina):
    ds = photography(retina, SmallestImagePixelValue=0)
    ds.add_new(0x60000010, "US", 4)
    source = b"MZ" + written(ds)[2:]
    out = derived(source)
    assert out[:128] == bytes(128)
    again = pydicom.dcmread(io.BytesIO(out))
    assert 0x60000010 not in again
    assert "SmallestImagePixelValue" not in again


def test_a_lossy_source_stays_marked(retina):
    ds = photography(retina, LossyImageCompression="01", LossyImageCompressionRatio=10)
    assert pydicom.dcmread(io.BytesIO(derived(written(ds)))).LossyImageCompression == "01"


def test_dicom_is_not_made_of_other_pictures(retina):
    with pytest.raises(ImageError, match="only from DICOM"):
        encode_dicom(Photograph(retina))


def test_a_source_that_cannot_be_named_is_refused_in_one_line(retina):
    photograph = decode_dicom(written(photography(retina)), LIMIT)
    del photograph.dicom.SOPInstanceUID
    with pytest.raises(ImageError, match="no SOPInstanceUID"):
        encode_dicom(photograph)
