"""DICOM as archives leave it is read; what claims more or less than it holds is refused."""

import io
import logging
import struct
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from builders.dicom import J2K, JPEG_BASELINE, RLE, photography, written
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import decode_image, encode_image
from retinashift.imaging.photograph import ImageError

LIMIT = 10**6
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"


def start_of(data: bytes) -> int:
    """Where the data set begins, behind the file meta information."""
    return 132 + 12 + struct.unpack_from("<I", data, 140)[0]


def upscaled(photograph) -> Dataset:
    large = np.repeat(np.repeat(photograph.pixels, 4, 0), 4, 1)
    return pydicom.dcmread(io.BytesIO(encode_image("a.dcm", large, like=photograph, scale=4)))


@pytest.mark.parametrize("inner", [b"\xfe\xff\0\xe0\x10\0\0\0whatever it says", b"\xfe\xff\0\xe0\xff\xff\0\0"])
def test_a_value_of_defined_length_and_unknown_kind_is_skipped_by_its_length(retina, inner):
    data = written(photography(retina))
    unknown = b"\x09\0\x10\0LO\4\0TEST" + b"\x09\0\x01\x10UN\0\0" + struct.pack("<I", len(inner)) + inner
    place = data.index(b"\x10\0\x10\0PN")
    assert np.array_equal(decode_dicom(data[:place] + unknown + data[place:], LIMIT).pixels, retina)


def test_a_header_that_is_not_coded_as_it_says_is_read_with_a_note(retina):
    explicit, implicit = written(photography(retina)), written(photography(retina), "1.2.840.10008.1.2")
    mixed = explicit[: start_of(explicit)] + implicit[start_of(implicit) :]
    photograph = decode_dicom(mixed, LIMIT)
    assert np.array_equal(photograph.pixels, retina)
    assert "no value representations" in photograph.notes[0]


@pytest.mark.parametrize("behind", [bytes(2), bytes(8), bytes(500), b"\xfe\xff\xdd\xe0" + bytes(4), b"rubbish!"])
def test_bytes_behind_the_pixels_make_no_difference(retina, behind):
    assert np.array_equal(decode_dicom(written(photography(retina)) + behind, LIMIT).pixels, retina)


@pytest.mark.parametrize("pad", [b"\0", b"\xff", b"\x20"])
def test_a_pad_byte_behind_the_end_of_a_frame_is_harmless(retina, pad):
    coded = bytes(imagecodecs.jpeg8_encode(retina))
    coded += pad if len(coded) % 2 else b""
    data = written(photography(retina, PhotometricInterpretation="YBR_FULL_422"), JPEG_BASELINE, coded)
    assert decode_dicom(data, LIMIT).pixels.shape == retina.shape


def test_zeros_for_the_end_of_the_fragments_are_noted(retina):
    coded = bytes(imagecodecs.jpeg8_encode(retina))
    data = written(photography(retina, PhotometricInterpretation="YBR_FULL_422"), JPEG_BASELINE, coded)
    photograph = decode_dicom(data[:-8] + bytes(8), LIMIT)
    assert photograph.pixels.shape == retina.shape
    assert "lack their end" in photograph.notes[0]


def test_a_file_without_a_preamble_is_read(retina):
    data = written(photography(retina))
    assert np.array_equal(decode_image(data[132:], "a").pixels, retina)
    with pytest.raises(ImageError, match="DICOM without its file header"):
        decode_image(data[start_of(data) :], "a")


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, "1.2.840.10008.1.2"])
@pytest.mark.parametrize("change", [{"Columns": 127}, {"Rows": 127}, {"Columns": 129}, {"NumberOfFrames": 2}])
def test_pixels_that_do_not_fit_the_stated_size_are_refused(retina, syntax, change):
    with pytest.raises(ImageError, match="pixels have 49,152 bytes"):
        decode_dicom(written(photography(retina, **change), syntax), LIMIT, 1)


@pytest.mark.parametrize("coded", [None, "jpeg"])
def test_frames_that_the_header_does_not_count_are_refused(retina, coded):
    ds = photography(np.stack([retina, retina]), NumberOfFrames=1)
    if coded is None:
        with pytest.raises(ImageError, match="98,304 bytes; 1 frame"):
            decode_dicom(written(ds), LIMIT)
    else:
        frame = bytes(imagecodecs.jpeg8_encode(retina))
        data = written(photography(retina, PhotometricInterpretation="YBR_FULL_422"), JPEG_BASELINE, frame)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame) + len(frame) % 2) + frame + bytes(len(frame) % 2)
        with pytest.raises(ImageError, match="holds 2 coded frame"):
            decode_dicom(data[:-8] + item + data[-8:], LIMIT)


def test_values_above_the_stored_bits_are_refused(retina):
    with pytest.raises(ImageError, match="the header allows 127"):
        decode_dicom(written(photography(retina | 128, BitsStored=7, HighBit=6)), LIMIT)


def test_a_deflated_object_inflates_no_further_than_its_own_pixels(retina):
    data = written(photography(retina), DEFLATED)
    start = start_of(data)
    whole = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    padding = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<I", 2**26) + bytes(2**26)
    place = whole.index(b"\x10\0\x10\0PN")
    early = whole[:place] + b"\x09\0\x10\0OB\0\0" + struct.pack("<I", 2**26) + bytes(2**26) + whole[place:]
    for body, reason in ((whole + padding, "of its pixels"), (early, "more than 64 MiB in front of its pixels")):
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        with pytest.raises(ImageError, match=reason):
            decode_dicom(data[:start] + packer.compress(body) + packer.flush(), 10**8)


def test_text_keeps_its_bytes_whatever_its_character_set(retina):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "XXXX"
    ds = photography(retina, PatientName="XXXX^YY", StudyDescription="XXXX", AnatomicRegionSequence=[item])
    ds.SpecificCharacterSet = "ISO_IR 192"
    latin = written(ds).replace(b"XXXX", "M\u00fcl\u00e9".encode("latin-1"))  # which is no UTF-8
    result = upscaled(decode_dicom(latin, LIMIT))
    for place in (result.get_item(0x00100010), result.get_item(0x00081030)):
        assert place.value.startswith("M\u00fcl\u00e9".encode("latin-1"))
    assert b"M\xfcl\xe9" in result.AnatomicRegionSequence[0].get_item(0x00080104).value
    assert result.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("PixelSpacing", b"DS", b"0,01\\0,01 "),
        ("IntraOcularPressure", b"FL", b"abc"),
        ("ImageType", b"SQ", b""),
        ("HorizontalFieldOfView", b"FL", b"ab"),
    ],
)
def test_a_damaged_value_costs_that_value_and_is_named(retina, name, kind, value):
    ds = photography(retina)
    if name in ds:
        delattr(ds, name)
    data, tag = written(ds), pydicom.tag.Tag(name)
    length = struct.pack("<H", len(value)) if kind != b"SQ" else b"\0\0" + struct.pack("<I", len(value))
    element = struct.pack("<HH", tag.group, tag.element) + kind + length + value
    place = start_of(data)
    photograph = decode_dicom(data[:place] + element + data[place:], LIMIT)
    assert np.array_equal(photograph.pixels, retina)
    assert name not in photograph.dicom
    assert any(name in note for note in photograph.notes)
    assert upscaled(photograph).Rows == 512


@pytest.mark.parametrize("kind", ["5", "6"])
def test_wide_field_photography_is_read_and_its_map_follows_the_pixels(retina, kind):
    ds = photography(retina, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.77.1.5.{kind}")
    item = Dataset()
    item.ReferencedFrameNumbers, item.NumberOfMapPoints = 1, 1
    item.TwoDimensionalToThreeDimensionalMapData = np.array([10, 20.5, 1, 2, 3], "<f4").tobytes()
    ds.TwoDimensionalToThreeDimensionalMapSequence = [item]
    ds.XCoordinatesCenterPixelViewAngle = ds.YCoordinatesCenterPixelViewAngle = 0.04
    result = upscaled(decode_dicom(written(ds), LIMIT))
    points = result.TwoDimensionalToThreeDimensionalMapSequence[0].TwoDimensionalToThreeDimensionalMapData
    assert np.frombuffer(points, "<f4").tolist() == [40, 82, 1, 2, 3]
    assert result.XCoordinatesCenterPixelViewAngle == pytest.approx(0.01)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT", "YBR_FULL"])
def test_the_codestream_says_whether_its_colours_are_transformed(retina, photometric):
    coded = bytes(imagecodecs.jpeg2k_encode(retina, level=0, codecformat="j2k", reversible=True, mct=True))
    data = written(photography(retina, PhotometricInterpretation=photometric), J2K, coded)
    assert np.array_equal(decode_dicom(data, LIMIT).pixels, retina)


def test_runs_of_another_length_are_refused(retina):
    ds = photography(np.ascontiguousarray(retina[..., 1]))
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    ds.compress(RLE)
    ds.Columns = 127
    with pytest.raises(ImageError, match="do not fit|TOO_SMALL"):
        decode_image(written(ds, RLE), "a")


def test_what_libraries_log_while_a_file_is_read_has_the_name_of_the_file(retina, caplog):
    logging.captureWarnings(True)
    try:
        data = written(photography(retina)).replace(b"20200101101010", b"2020010110XX10")
        decode_image(data, "eye\x1b.dcm")
    finally:
        logging.captureWarnings(False)
    foreign = [r.getMessage() for r in caplog.records if not r.name.startswith("retinashift")]
    assert all(message.startswith("eye\\x1b.dcm: ") and "\n" not in message for message in foreign)
