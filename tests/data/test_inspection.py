"""Photographs are looked at before a run: sizes without decoding, and every flawed file by its name."""

import gzip
import zipfile

import pytest
from PIL import Image
from PIL.ExifTags import Base

from builders.dicom import photography, written
from retinashift.data.checks import check_photographs, measured
from retinashift.data.photographs import DataError, FileRef, Source, list_source
from retinashift.imaging.files import WRITE_SUFFIXES, write_image

CHEAP = (".png", ".jpg", ".jpeg", ".ppm", ".pgm")


def written_as(suffix, folder, retina):
    path = folder / f"eye{suffix}"
    if suffix == ".dcm":
        path.write_bytes(written(photography(retina)))
    elif suffix.endswith(".gz"):
        plain = folder / f"plain{suffix[:-3]}"
        write_image(plain, retina[..., 1] if "pgm" in suffix else retina)
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        write_image(path, retina[..., 1] if suffix == ".pgm" else retina)
    return FileRef(path.name, path)


def nothing_is_decoded(monkeypatch):
    def read(ref):
        raise AssertionError(f"{ref.name} was decoded")

    monkeypatch.setattr(FileRef, "read", read)


@pytest.mark.parametrize("suffix", [*WRITE_SUFFIXES, ".ppm.gz", ".pgm.gz"])
def test_the_size_of_every_type_is_that_of_its_pixels(suffix, tmp_path, retina):
    ref = written_as(suffix, tmp_path, retina[:96, :120])
    assert measured(ref) == ref.read().shape[:2] == (96, 120)


@pytest.mark.parametrize("suffix", CHEAP)
def test_a_usual_file_is_not_decoded(suffix, tmp_path, retina, monkeypatch):
    ref = written_as(suffix, tmp_path, retina[:96, :120])
    nothing_is_decoded(monkeypatch)
    assert measured(ref) == (96, 120)


def test_a_member_of_a_zip_is_not_decoded(tmp_path, retina, monkeypatch):
    plain = written_as(".ppm", tmp_path, retina).path
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "a/im0001.ppm")
    nothing_is_decoded(monkeypatch)
    assert measured(FileRef("a/im0001.ppm", tmp_path / "s.zip", "a/im0001.ppm")) == (128, 128)


@pytest.mark.parametrize("suffix", [*WRITE_SUFFIXES, ".ppm.gz", ".pgm.gz"])
@pytest.mark.parametrize("left", [0.1, 0.6, 0.99])
def test_a_truncated_file_of_every_type_is_named(left, suffix, tmp_path, retina):
    ref = written_as(suffix, tmp_path, retina)
    whole = ref.path.read_bytes()
    ref.path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(DataError, match=rf"eye{suffix}"):
        measured(ref)


def test_a_file_with_more_behind_its_end_is_as_good_as_its_pixels(tmp_path, retina):
    for suffix in (".jpg", ".png"):
        ref = written_as(suffix, tmp_path, retina)
        ref.path.write_bytes(ref.path.read_bytes() + b"camera" * 99)
        assert measured(ref) == (128, 128)


def test_what_the_decoder_refuses_is_refused_at_once(tmp_path, retina):
    Image.fromarray(retina).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(retina).convert("CMYK").save(tmp_path / "ink.jpg")
    Image.fromarray(retina).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(retina)])
    Image.fromarray(retina).save(tmp_path / "packed.tif", compression="jpeg")
    assert measured(FileRef("packed.tif", tmp_path / "packed.tif")) == (128, 128)  # unusual, but read
    for name in ("alpha.png", "ink.jpg", "pages.tif"):
        with pytest.raises(DataError, match=name):
            measured(FileRef(name, tmp_path / name))


def test_a_turned_photograph_has_the_size_it_is_shown_in(tmp_path, retina):
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    for name in ("turned.jpg", "turned.png", "turned.tif"):
        Image.fromarray(retina[:96, :120]).save(tmp_path / name, exif=exif)
        ref = FileRef(name, tmp_path / name)
        assert measured(ref) == ref.read().shape[:2]
    assert measured(FileRef("turned.jpg", tmp_path / "turned.jpg")) == (120, 96)


def test_flawed_photographs_are_named_and_counted(tmp_path):
    for name, side in (("a.png", 200), ("b.png", 100), ("c.png", 4)):
        Image.new("RGB", (side, side)).save(tmp_path / name)
    items = list_source(Source(str(tmp_path)))
    check_photographs(items, 4)

    def at_least_150(name, size):
        if min(size) < 150:
            raise DataError(f"{name} is small")

    with pytest.raises(DataError, match=r"^b.png is small \(1 more cannot be used either\)$"):
        check_photographs(items, 4, at_least_150)


def test_whatever_a_file_raises_is_its_flaw_and_the_others_are_looked_at(tmp_path, retina, monkeypatch):
    for name in ("a.webp", "b.webp", "c.webp"):
        Image.fromarray(retina).save(tmp_path / name, lossless=True)
    real = FileRef.read

    def read(ref):
        if ref.name != "c.webp":
            raise TypeError("no such codec")
        return real(ref)

    monkeypatch.setattr(FileRef, "read", read)
    with pytest.raises(DataError, match=r"^a.webp: internal error \(TypeError: no such codec\).* \(1 more cannot"):
        check_photographs(list_source(Source(str(tmp_path))), 4)


def test_a_damaged_member_of_a_zip_is_named(tmp_path, retina):
    picture = written_as(".webp", tmp_path, retina).path
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(picture, "a/im0001.webp")
    data = bytearray((tmp_path / "s.zip").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "s.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"im0001.webp cannot be read from the zip \(Bad CRC-32"):
        measured(FileRef("a/im0001.webp", tmp_path / "s.zip", "a/im0001.webp"))
