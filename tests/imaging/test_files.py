"""Files in and out: nothing lost, nothing half written, nothing overwritten, one line for what is bad."""

import errno
import gzip
import io
import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from retinashift.imaging.files import (
    ImageError,
    Photograph,
    decode_image,
    encode_image,
    find_images,
    read_image,
    replace_file,
    write_image,
)
from retinashift.imaging.formats.exif import load_exif
from retinashift.imaging.provenance import Provenance

SIDES = st.integers(1, 97)
SAVED = {"png": {}, "jpg": {"quality": 100, "subsampling": 0}, "tif": {}, "webp": {"lossless": True}}
"""Formats with metadata, and how Pillow writes them with little or no loss."""


def ours(caplog) -> list[str]:
    """What was logged here; libpng's own complaints come through imagecodecs."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("retinashift")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    SIDES,
    SIDES,
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from(["png", "tif", "ppm"]),
)
def test_lossless_formats_give_back_what_was_written(tmp_path, height, width, channels, dtype, suffix):
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    write_image(tmp_path / f"a.{suffix}", pixels, overwrite=True)
    again = read_image(tmp_path / f"a.{suffix}").pixels
    assert again.dtype == dtype
    assert np.array_equal(again, pixels)


def test_the_content_tells_the_format_and_not_the_suffix(tmp_path, retina):
    write_image(tmp_path / "a.tif", retina)
    (tmp_path / "a.tif").rename(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").format == "TIFF"


@pytest.mark.parametrize("suffix", SAVED)
def test_resolution_follows_the_scale_and_metadata_the_input(tmp_path, retina, suffix):
    exif = Image.Exif()
    exif[Base.Make] = "Camera"
    like = Photograph(retina, icc=b"profile" * 20, exif=exif.tobytes()[6:], dpi=(300.0, 200.0))
    write_image(tmp_path / f"a.{suffix}", np.repeat(np.repeat(retina, 2, 0), 2, 1), like=like, scale=2)
    again = read_image(tmp_path / f"a.{suffix}")
    assert again.dpi == pytest.approx((600, 400), abs=0.02)
    assert again.icc == like.icc
    assert load_exif(again.exif)[Base.Make] == "Camera"
    write_image(tmp_path / f"less.{suffix}", retina, like=like, scale=1.5)
    assert read_image(tmp_path / f"less.{suffix}").dpi == pytest.approx((450, 300), abs=0.02)
    write_image(tmp_path / f"bare.{suffix}", retina)
    bare = read_image(tmp_path / f"bare.{suffix}")
    assert (bare.dpi, bare.icc, bare.exif) == (None, None, None)


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("suffix", SAVED)
def test_pixels_and_resolution_are_turned_upright_once_through_reading_and_writing(
    tmp_path, retina, suffix, orientation
):
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make] = orientation, "Camera"
    exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit] = 300.0, 150.0, 2
    stored = retina[:16, :32]
    Image.fromarray(stored).save(tmp_path / f"in.{suffix}", exif=exif, dpi=(300, 150), **SAVED[suffix])
    photograph = read_image(tmp_path / f"in.{suffix}")
    upright = np.rot90(stored, 1 if orientation == 8 else -1)
    assert photograph.pixels.shape == upright.shape
    assert np.abs(photograph.pixels.astype(int) - upright).mean() <= (1 if suffix == "jpg" else 0)
    assert photograph.dpi == pytest.approx((150, 300), abs=0.02)
    write_image(tmp_path / f"out.{suffix}", photograph)
    again = read_image(tmp_path / f"out.{suffix}")
    assert np.abs(again.pixels.astype(int) - photograph.pixels).mean() <= (3 if suffix == "jpg" else 0)
    assert again.dpi == pytest.approx((150, 300), abs=0.02)
    written = Image.open(tmp_path / f"out.{suffix}").getexif()
    assert Base.Orientation not in written
    assert written[Base.Make] == "Camera"


@pytest.mark.parametrize("suffix", SAVED)
def test_text_in_exif_keeps_its_bytes_from_one_format_to_another(tmp_path, retina, suffix):
    exif = Image.Exif()
    exif[Base.Artist] = "Prüfung".encode()
    Image.fromarray(retina).save(tmp_path / f"in.{suffix}", exif=exif, **SAVED[suffix])
    for other in SAVED:
        write_image(tmp_path / f"out.{other}", read_image(tmp_path / f"in.{suffix}"), overwrite=True)
        assert "Prüfung".encode() in (tmp_path / f"out.{other}").read_bytes()


def test_of_resolutions_that_differ_the_one_outside_exif_is_kept_and_multiplied(tmp_path, retina):
    exif = Image.Exif()
    exif[Base.XResolution] = exif[Base.YResolution] = 300.0
    Image.fromarray(retina).save(tmp_path / "in.jpg", exif=exif, dpi=(72, 72))
    for suffix in ("jpg", "png"):
        write_image(tmp_path / f"a.{suffix}", np.repeat(retina, 4, 0), like=read_image(tmp_path / "in.jpg"), scale=4)
        again = read_image(tmp_path / f"a.{suffix}")
        assert again.dpi == pytest.approx((288, 288), abs=0.02)
        assert Base.XResolution not in load_exif(again.exif)


def test_what_is_not_carried_over_is_told_once_where_a_result_is_written(tmp_path, retina, caplog):
    picture = Image.fromarray(retina)
    text = PngInfo()
    text.add_text("Comment", "left eye")
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    picture.save(tmp_path / "a.png", pnginfo=text)
    picture.save(tmp_path / "a.jpg", comment="left eye", xmp=b"<x/>")
    picture.save(tmp_path / "a.webp", xmp=b"<x/>")
    picture.save(tmp_path / "a.tif", tiffinfo={700: b"<x/>"})
    for suffix, expected in (("png", "text 'Comment', XMP"), ("jpg", "XMP, comment"), ("webp", "XMP"), ("tif", "XMP")):
        caplog.clear()
        photograph = read_image(tmp_path / f"a.{suffix}")
        assert ours(caplog) == []
        write_image(tmp_path / "out.png", retina, like=photograph, overwrite=True)
        assert ours(caplog) == [f"{tmp_path / 'out.png'}: not carried over from the input: {expected}"]


def test_damaged_exif_is_told_with_the_name_of_the_file(tmp_path, retina, caplog):
    for suffix in ("png", "jpg", "webp"):
        caplog.clear()
        Image.fromarray(retina).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0rubbish")
        assert read_image(tmp_path / f"a.{suffix}").exif is None
        (message,) = ours(caplog)
        assert message.startswith(f"{tmp_path / f'a.{suffix}'}: damaged EXIF is left out")


def test_nothing_is_told_of_files_that_are_carried_over_whole(tmp_path, retina, caplog):
    exif = Image.Exif()
    exif[Base.Make] = "Camera"
    like = Photograph(retina, icc=b"profile" * 20, exif=exif.tobytes()[6:], dpi=(300.0, 200.0))
    for suffix in SAVED:
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encode_image(path, retina, like=like, provenance=Provenance(4, "c", 1, 0, "1")))
        write_image(path, read_image(path), overwrite=True)
    assert ours(caplog) == []


@pytest.mark.parametrize("suffix", SAVED)
def test_a_picture_above_the_limit_is_refused(tmp_path, retina, suffix):
    Image.fromarray(retina).save(tmp_path / f"a.{suffix}", **SAVED[suffix])
    with pytest.raises(ImageError, match="128x128 pixels are above the limit"):
        read_image(tmp_path / f"a.{suffix}", 1000)


def test_a_profile_for_colour_is_not_put_on_grey(tmp_path, retina, caplog):
    write_image(tmp_path / "a.png", retina[..., 0], like=Photograph(retina, icc=b"colour"))
    assert read_image(tmp_path / "a.png").icc is None
    (message,) = caplog.messages
    assert "a.png: not carried over from the input: the ICC profile, which is for another" in message


def test_a_single_channel_is_grey(tmp_path, retina):
    write_image(tmp_path / "a.png", retina[..., :1])
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, retina[..., 0])


def test_an_existing_file_is_replaced_only_on_demand(tmp_path, retina):
    write_image(tmp_path / "a.png", retina)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ImageError, match="exists already"):
        write_image(tmp_path / "a.png", 255 - retina)
    assert (tmp_path / "a.png").read_bytes() == before
    write_image(tmp_path / "a.png", 255 - retina, overwrite=True)
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, 255 - retina)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, retina, monkeypatch, broken):
    write_image(tmp_path / "a.png", retina)
    before = (tmp_path / "a.png").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_image(tmp_path / "a.png", 255 - retina, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_what_a_format_cannot_hold_is_refused_and_leaves_no_file(tmp_path, retina):
    rgba = np.dstack([retina, retina[..., 0]])
    for name, pixels, reason in (
        ("a.jpg", retina.astype(np.uint16), "8 bit only"),
        ("a.jpg", rgba, "alpha"),
        ("a.ppm", rgba, "alpha"),
        ("a.pgm", retina, "cannot hold colour"),
        ("a.gif", retina, "suffix must be one of"),
        ("a", retina, "suffix must be one of"),
        ("missing/a.png", retina, "does not exist"),
        ("a.png", retina / 255, "float64"),
    ):
        with pytest.raises(ImageError, match=reason) as caught:
            write_image(tmp_path / name, pixels)
        assert str(tmp_path / name) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bad_files_are_named_with_the_reason(tmp_path, retina):
    buffer = io.BytesIO()
    Image.fromarray(retina).save(buffer, "GIF")
    for name, data, reason in (
        ("gif.png", buffer.getvalue(), "GIF is not read"),
        ("empty.png", b"", "empty file"),
        ("text.png", b"hello", "not an image file"),
        ("eps.png", b"%!PS-Adobe-3.0 EPSF", "PostScript is not read"),
        ("dos-eps.png", b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript is not read"),
        ("svg.png", b"<svg xmlns=''/>", "SVG is not read"),
        ("svg.tif", b"<?xml version='1.0'?><svg/>", "XML or SVG is not read"),
        ("pdf.jpg", b"%PDF-1.7", "PDF is not read"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "PNG without a header"),
        ("cut.jpg", b"\xff\xd8\xff", "truncated or damaged JPEG"),
        ("cut.tif", b"II*\0", "truncated or damaged TIFF"),
        ("cut.ppm.gz", gzip.compress(b"P6 9 9 255 abc")[:-12], "PPM"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    for path, reason in ((tmp_path, "a folder"), (tmp_path / "none.png", "no such file")):
        with pytest.raises(ImageError, match=reason):
            read_image(path)


def test_a_file_longer_than_its_limit_of_pixels_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**27)
    with pytest.raises(ImageError, match="bytes are more than"):
        read_image(tmp_path / "a.png", max_pixels=1000)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of each damaged EXIF tag
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "ppm", "lzw.tif"])
def test_damaged_bytes_raise_no_other_error(tmp_path, retina, suffix):
    exif = Image.Exif()
    exif[271] = "Camera"
    settings_ = {"compression": "tiff_lzw"} if "lzw" in suffix else {}
    Image.fromarray(retina[:24, :24]).save(tmp_path / f"a.{suffix}", exif=exif, dpi=(72, 72), **settings_)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    rng = random.Random(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(min(len(damaged), 400))] = rng.randrange(256)
        try:
            decode_image(bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])]), "a", 10**6)
            outcomes.add("read")
        except ImageError:
            outcomes.add("refused")
    assert "refused" in outcomes


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folders_are_searched_with_all_below_and_keep_their_tree(tmp_path):
    names = ["a.PNG", "b/c.ppm.gz", "b/d e/ü.Tiff"]
    touch(*(tmp_path / name for name in [*names, "notes.txt", ".hidden.png", "b/._c.png"]))
    found = find_images([tmp_path])
    assert [relative.as_posix() for _, relative in found] == names
    assert all(path == tmp_path / relative for path, relative in found)


def test_files_folders_and_patterns_mix_and_each_file_comes_once(tmp_path):
    touch(tmp_path / "x/1.png", tmp_path / "x/y/2.jpg", tmp_path / "odd.bin", tmp_path / "x/3.txt")
    found = find_images([str(tmp_path / "x/**/*"), tmp_path / "x", tmp_path / "odd.bin"])
    assert [relative.as_posix() for _, relative in found] == ["odd.bin", "1.png", "y/2.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    touch(tmp_path / "eye[1].png")
    assert find_images([tmp_path / "eye[1].png"])[0][1].name == "eye[1].png"


def test_relative_paths_never_leave_the_output_folder(tmp_path, monkeypatch):
    touch(tmp_path / "in/1.png", tmp_path / "work/2.png")
    monkeypatch.chdir(tmp_path / "work")
    for given_ in ("../in", "../in/*.png", "../in/1.png", ".", "*.png"):
        for _, relative in find_images([given_]):
            assert not relative.is_absolute()
            assert ".." not in relative.parts


def test_an_input_that_gives_nothing_is_named(tmp_path):
    touch(tmp_path / "notes.txt")
    for given_, reason in (
        (tmp_path / "none.png", "no such file or folder"),
        (tmp_path, "no image found"),
        (tmp_path / "*.png", "no image found"),
        ("a\0b.png", "no such file or folder|null"),
    ):
        with pytest.raises(ImageError, match=reason):
            find_images([given_])
    with pytest.raises(ImageError, match="no input was given"):
        find_images([])


@pytest.mark.shared
def test_photographs_of_the_public_sets_are_read_as_pillow_reads_them(shared):
    for pattern in ("drive/images/*.tif", "stare/*.ppm", "val/*.jpg"):
        for path, _ in find_images([shared / "data" / pattern])[: 20 if "drive" in pattern else 4]:
            assert np.array_equal(read_image(path).pixels, np.asarray(Image.open(path))), path.name


def test_a_disk_that_cannot_flush_is_no_failed_write_and_a_full_one_names_the_file(tmp_path, monkeypatch):
    def fsync_fails(number):
        def fsync(descriptor):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    for number in (errno.EINVAL, errno.ENOTSUP):
        fsync_fails(number)
        replace_file(tmp_path / "a.png", b"new")
        assert (tmp_path / "a.png").read_bytes() == b"new"
    fsync_fails(errno.ENOSPC)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.png"):
        replace_file(tmp_path / "a.png", b"newer")
    fsync_fails(errno.EINVAL)
    with pytest.raises(FileExistsError, match="--overwrite"):
        replace_file(tmp_path / "a.png", b"newer", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"new"
