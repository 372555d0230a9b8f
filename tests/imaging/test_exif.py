"""EXIF survives an enlargement, but for what is no longer true: orientation, size, resolution, thumbnails."""

import logging

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from retinashift.imaging.exif import dump_exif, exif_dpi, exif_orientation, fit_exif, load_exif


def block(**first) -> bytes:
    exif = Image.Exif()
    for name, value in first.items():
        exif[Base[name]] = value
    exif.get_ifd(IFD.Exif).update({Base.ExposureTime: 0.01, Base.ExifImageWidth: 40, Base.ExifImageHeight: 30})
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_camera_and_exposure_are_kept_and_size_and_resolution_are_made_true():
    before = block(Make="Camera", XResolution=72.0, YResolution=72.0, ResolutionUnit=3, Orientation=6)
    exif = load_exif(fit_exif(before, 160, 120, (288.0, 288.0)))
    assert exif[Base.Make] == "Camera"
    assert (exif[Base.XResolution], exif[Base.ResolutionUnit]) == (288, 2)
    assert Base.Orientation not in exif
    assert exif.get_ifd(IFD.Exif) == {Base.ExposureTime: 0.01, Base.ExifImageWidth: 160, Base.ExifImageHeight: 120}
    assert exif.get_ifd(IFD.GPSInfo) == {1: "N"}


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


def test_a_damaged_block_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(load_exif(b"rubbish")) == 0
    assert "damaged EXIF" in caplog.text
