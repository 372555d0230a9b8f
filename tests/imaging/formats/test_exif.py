"""EXIF survives an enlargement, but for what is no longer true: orientation, size, resolution, thumbnails."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from retinashift.imaging.files import encode_image
from retinashift.imaging.formats.exif import dump_exif, exif_dpi, fit_exif, load_exif, upright_photograph
from retinashift.imaging.formats.table import FORMATS
from retinashift.imaging.photograph import upright


def block(details=(), **first) -> bytes:
    exif = Image.Exif()
    for name, value in first.items():
        exif[Base[name]] = value
    exif.get_ifd(IFD.Exif).update({Base.ExposureTime: 0.01, Base.ExifImageWidth: 40, Base.ExifImageHeight: 30})
    exif.get_ifd(IFD.Exif).update(details)
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_camera_and_exposure_are_kept_and_size_is_made_true():
    exif = load_exif(fit_exif(block(Make="Camera"), 160, 120))
    assert exif[Base.Make] == "Camera"
    assert exif[IFD.Exif] == {Base.ExposureTime: 0.01, Base.ExifImageWidth: 160, Base.ExifImageHeight: 120}
    assert exif[IFD.GPSInfo] == {1: "N"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_and_its_resolution_turns_and_grows_with_it(suffix, orientation):
    stored = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    tags = load_exif(block(XResolution=72.0, YResolution=36.0, ResolutionUnit=3, Orientation=orientation))
    photograph = upright_photograph(stored, "JPEG", tags)
    assert np.array_equal(photograph.pixels, upright(stored, orientation))
    data = encode_image(f"a.{suffix}", np.zeros((8, 8, 3), np.uint8), like=photograph, scale=4)
    known = next(known for known in FORMATS.values() if f".{suffix}" in known.suffixes)
    dpi = known.decode(data, 100, None).dpi
    expected = (36, 72) if orientation > 4 else (72, 36)
    assert dpi == pytest.approx([4 * 2.54 * value for value in expected], abs=0.6)
    with Image.open(io.BytesIO(data)) as other:
        assert Base.Orientation not in other.getexif()


def test_tags_with_places_in_the_small_picture_or_offsets_into_its_file_are_left_out():
    details = {0x9214: (10, 20, 4, 6), 0xA214: (10, 20), Base.FocalPlaneXResolution: 3.5, IFD.MakerNote: b"note" * 9}
    after = load_exif(fit_exif(block(details), 160, 120))
    assert set(after[IFD.Exif]) == {Base.ExposureTime, Base.ExifImageWidth, Base.ExifImageHeight}


def test_a_resolution_without_a_unit_is_left_out_and_told():
    tags = load_exif(block(XResolution=2.5, YResolution=1.5, ResolutionUnit=1))
    photograph = upright_photograph(np.zeros((3, 4), np.uint8), "TIFF", tags)
    assert (photograph.dpi, photograph.left_out) == (None, ("a resolution without a unit or a value",))


@pytest.mark.parametrize("text", ["Prüfung".encode(), "Müller".encode("latin-1"), b"\x81\xff"])
def test_text_that_is_not_ascii_keeps_its_bytes_and_its_type(text):
    ascii = "X" * len(text)
    before = block({Base.LensSerialNumber: ascii}, Artist=ascii).replace(ascii.encode(), text)
    assert before.count(text + b"\0") == 2
    after = fit_exif(before, 160, 120)
    assert after.count(text + b"\0") == 2
    assert load_exif(after)[Base.Artist] == load_exif(before)[Base.Artist] == text.decode("latin-1")


def test_tags_about_the_storage_of_another_file_are_left_out():
    assert Base.StripOffsets not in load_exif(block(StripOffsets=8, Make="Camera"))


@pytest.mark.parametrize(("unit", "dpi"), [(2, (100, 50)), (3, (254, 127)), (1, None)])
def test_resolution_is_given_per_inch(unit, dpi):
    assert exif_dpi(load_exif(block(XResolution=100.0, YResolution=50.0, ResolutionUnit=unit))) == dpi


def test_missing_and_absurd_tags_mean_upright_and_no_resolution():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for stored in (None, block(Orientation=99)):
        assert np.array_equal(upright_photograph(pixels, "PNG", load_exif(stored)).pixels, pixels)
    assert exif_dpi(load_exif(block(XResolution=0.0, YResolution=0.0))) is None
    assert dump_exif(load_exif(None)) is None


def test_a_directory_whose_place_is_no_number_costs_that_directory_alone():
    directory = ImageFileDirectory_v2()
    directory[Base.Make], directory.tagtype[IFD.GPSInfo] = "Camera", 2
    directory[IFD.GPSInfo] = "nowhere"
    assert load_exif(b"II*\0\x08\0\0\0" + directory.tobytes(8)) == {Base.Make: "Camera"}


def test_a_damaged_block_is_left_out_and_noted():
    notes = []
    assert len(load_exif(b"rubbish", notes)) == 0
    assert len(notes) == 1
    assert "damaged EXIF is left out" in notes[0]
