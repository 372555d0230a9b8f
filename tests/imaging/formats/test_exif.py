"""EXIF survives an enlargement, but for what is no longer true: orientation, size, resolution, thumbnails."""

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from retinashift.imaging.formats.exif import (
    SUBJECT_AREA,
    SUBJECT_LOCATION,
    dump_exif,
    exif_dpi,
    exif_orientation,
    fit_exif,
    load_exif,
    upright_exif,
)
from retinashift.imaging.photograph import upright


def block(details=(), **first) -> bytes:
    exif = Image.Exif()
    for name, value in first.items():
        exif[Base[name]] = value
    exif.get_ifd(IFD.Exif).update({Base.ExposureTime: 0.01, Base.ExifImageWidth: 40, Base.ExifImageHeight: 30})
    exif.get_ifd(IFD.Exif).update(details)
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_camera_and_exposure_are_kept_and_size_and_resolution_are_made_true():
    before = block(Make="Camera", XResolution=72.0, YResolution=36.0, ResolutionUnit=3)
    exif = load_exif(fit_exif(before, 160, 120, 4))
    assert exif[Base.Make] == "Camera"
    assert (exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit]) == (288, 144, 3)
    assert exif.get_ifd(IFD.Exif) == {Base.ExposureTime: 0.01, Base.ExifImageWidth: 160, Base.ExifImageHeight: 120}
    assert exif.get_ifd(IFD.GPSInfo) == {1: "N"}


def test_places_and_resolution_of_the_sensor_follow_the_scale():
    details = {SUBJECT_AREA: (10, 20, 4, 6), SUBJECT_LOCATION: (10, 20), Base.FocalPlaneXResolution: IFDRational(7, 2)}
    exif = load_exif(fit_exif(block(details), 160, 120, 4))
    again = exif.get_ifd(IFD.Exif)
    assert (again[SUBJECT_AREA], again[SUBJECT_LOCATION]) == ((42, 82, 16, 24), (42, 82))
    assert again[Base.FocalPlaneXResolution] == 14


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_and_what_is_across_turn_with_the_picture(orientation):
    width, height, x, y = 40, 30, 7, 11
    stored = np.zeros((height, width), np.uint8)
    stored[y, x] = 1
    details = {SUBJECT_AREA: (x, y, 4, 6), Base.FocalPlaneXResolution: 2.0, Base.FocalPlaneYResolution: 3.0}
    exif = load_exif(block(details, XResolution=72.0, YResolution=36.0, Orientation=orientation))
    exif = load_exif(upright_exif(exif, width, height))
    again = exif.get_ifd(IFD.Exif)
    turned = upright(stored, orientation)
    assert turned[again[SUBJECT_AREA][1], again[SUBJECT_AREA][0]] == 1
    assert Base.Orientation not in exif
    across = (exif[Base.XResolution], again[Base.FocalPlaneXResolution], *again[SUBJECT_AREA][2:])
    assert across == ((36, 3, 6, 4) if orientation > 4 else (72, 2, 4, 6))
    assert (again[Base.ExifImageWidth], again[Base.ExifImageHeight]) == turned.shape[::-1]


@pytest.mark.parametrize("text", ["Prüfung".encode(), "Müller".encode("latin-1"), b"\x81\xff"])
def test_text_that_is_not_ascii_keeps_its_bytes_and_its_type(text):
    ascii = "X" * len(text)
    before = block({Base.LensSerialNumber: ascii}, Artist=ascii).replace(ascii.encode(), text)
    assert before.count(text + b"\0") == 2
    after = fit_exif(upright_exif(load_exif(before), 40, 30), 160, 120, 4)
    assert after.count(text + b"\0") == 2
    assert load_exif(after)[Base.Artist] == load_exif(before)[Base.Artist] == text.decode("latin-1")


def test_tags_about_the_storage_of_another_file_are_left_out():
    assert Base.StripOffsets not in load_exif(block(StripOffsets=8, Make="Camera"))


@pytest.mark.parametrize(("unit", "dpi"), [(2, (100, 50)), (3, (254, 127)), (1, None)])
def test_resolution_is_given_per_inch(unit, dpi):
    assert exif_dpi(load_exif(block(XResolution=100.0, YResolution=50.0, ResolutionUnit=unit))) == dpi


def test_missing_and_absurd_tags_mean_upright_and_no_resolution():
    assert exif_orientation(load_exif(None)) == 1
    assert exif_orientation(load_exif(block(Orientation=99))) == 1
    assert exif_dpi(load_exif(block(XResolution=0.0, YResolution=0.0))) is None
    assert dump_exif(load_exif(None)) is None


def test_a_damaged_block_is_left_out_and_noted():
    notes = []
    assert len(load_exif(b"rubbish", notes)) == 0
    assert len(notes) == 1
    assert "damaged EXIF is left out" in notes[0]
