"""The table of formats: everything follows from an entry, and one entry adds a format."""

import io
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage.data
from PIL import Image

from retinashift.imaging.files import (
    READ_SUFFIXES,
    WRITE_SUFFIXES,
    check_target,
    decode_image,
    encode_image,
    find_provenance,
    read_image,
    write_image,
)
from retinashift.imaging.formats.table import FORMATS, Format
from retinashift.imaging.photograph import ImageError, Photograph
from retinashift.imaging.provenance import Provenance

RECORD = Provenance(4, "c" * 64, 1, 7, "1" * 64)


def decode_toy(data, max_pixels, page):
    """A toy: magic number, side, the record's length, the record, the pixels of a grey square."""
    side, length = data[3], data[4] * 256 + data[5]
    pixels = np.frombuffer(data[6 + length :], np.uint8).reshape(side, side)
    return Photograph(pixels, "toy")


def encode_toy(photograph):
    line = photograph.provenance.encode()
    return b"TOY" + bytes((len(photograph.pixels), *divmod(len(line), 256))) + line + photograph.pixels.tobytes()


TOY = Format(
    "toy", (".toy",), lambda head: head.startswith(b"TOY"), decode_toy, encode_toy, deep=False, colour=False,
    alpha=False, longest_side=99,
)  # fmt: skip


def test_a_format_takes_one_file_and_one_entry(tmp_path, retina, monkeypatch):
    monkeypatch.setitem(FORMATS, "toy", TOY)
    grey = np.ascontiguousarray(retina[:20, :20, 0])
    write_image(tmp_path / "a.toy", grey)
    assert np.array_equal(read_image(tmp_path / "a.toy").pixels, grey)
    data = encode_image("a.toy", grey, provenance=RECORD)
    assert find_provenance(data, "a") == decode_image(data, "a").record == RECORD
    for pixels, reason in ((retina[:20, :20], "cannot hold colour"), (grey.astype(np.uint16), "8 bit only")):
        with pytest.raises(ImageError, match=reason):
            encode_image("a.toy", pixels)
    with pytest.raises(ImageError, match="80x100 pixels and toy holds 99"):
        check_target("a.toy", Photograph(np.zeros((25, 20), np.uint8)), 4)


def test_what_is_found_and_written_follows_from_the_table():
    assert {suffix for known in FORMATS.values() for suffix in known.suffixes} <= set(READ_SUFFIXES)
    assert set(READ_SUFFIXES) - set(WRITE_SUFFIXES) == {
        ".bmp", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".jxl", ".ppm.gz", ".pgm.gz",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].encode and name != "DICOM"])
def test_a_file_that_is_read_tells_whose_result_it_is(retina, name):
    pixels = np.ascontiguousarray(retina[..., 1]) if name == "PGM" else retina
    data = encode_image(f"a{FORMATS[name].suffixes[0]}", pixels, provenance=RECORD)
    assert decode_image(data, "a").record == RECORD
    assert decode_image(encode_image("b.png", decode_image(data, "a")), "b").record is None


def saved(picture: Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def foreign(retina) -> dict[str, tuple[bytes, np.ndarray]]:
    """Files of the formats that are only read, and their pixels."""
    picture, grey, deep = Image.fromarray(retina), np.ascontiguousarray(retina[..., 1]), retina.astype(np.uint16) * 257
    palette = picture.quantize(50)
    exif = Image.Exif()
    exif[274] = 6
    turned = saved(picture.crop((0, 0, 100, 60)), "AVIF", quality=100, exif=exif)
    return {
        "a.bmp": (saved(picture, "BMP"), retina),
        "palette.bmp": (saved(palette, "BMP"), np.asarray(palette.convert("RGB"))),
        "bits.bmp": (saved(Image.fromarray(grey > 90), "BMP"), (grey > 90) * np.uint8(255)),
        "a.jp2": (bytes(imagecodecs.jpeg2k_encode(retina, level=0, reversible=True)), retina),
        "deep.j2k": (bytes(imagecodecs.jpeg2k_encode(deep, level=0, reversible=True, codecformat="j2k")), deep),
        "a.jxl": (bytes(imagecodecs.jpegxl_encode(retina, lossless=True)), retina),
        "box.jxl": (bytes(imagecodecs.jpegxl_encode(deep, lossless=True, usecontainer=True)), deep),
        "a.avif": (bytes(imagecodecs.avif_encode(retina, level=100)), retina),
        "grey.avif": (bytes(imagecodecs.avif_encode(grey, level=100)), grey),
        "turned.avif": (turned, np.rot90(imagecodecs.avif_decode(turned), -1)),
    }


def test_formats_that_are_only_read_are_read_and_bounded(retina):
    for name, (data, expected) in foreign(retina).items():
        found = decode_image(data, name)
        assert found.pixels.shape == expected.shape, name
        assert found.pixels.dtype == expected.dtype, name
        assert np.abs(found.pixels.astype(int) - expected).max() <= 3, name
        with pytest.raises(ImageError, match="above the limit"):
            decode_image(data, name, 1000)
        with pytest.raises(ImageError):
            decode_image(data[: len(data) // 2], name)
    with pytest.raises(ImageError, match="suffix must be one of"):
        encode_image("a.bmp", retina)


def test_ten_bits_fill_the_range(retina):
    deep = retina.astype(np.uint16) * 4 + 3
    for name, data in (
        ("a.avif", imagecodecs.avif_encode(deep, level=100, bitspersample=10)),
        ("a.jxl", imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=10)),
        ("a.jp2", imagecodecs.jpeg2k_encode(deep, level=0, reversible=True, bitspersample=10)),
    ):
        assert decode_image(bytes(data), name).pixels.mean() == pytest.approx(deep.mean() * 65535 / 1023, rel=0.002)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", "GIF is not read"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video or another ISO media file is not read"),
        (b"\x08\0\x05\0CS", "DICOM without its file header"),
        (b"hello", "not an image file"),
    ],
)
def test_what_is_refused_is_told_what_it_is(data, reason):
    with pytest.raises(ImageError, match=f"^eye: .*{reason}"):
        decode_image(data, "eye")


def test_heic_is_read_upright_and_bounded_and_needs_an_extra(monkeypatch):
    data = (Path(__file__).parent / "retina.heic").read_bytes()  # a crop of scikit-image's retina, on its side
    small = Image.fromarray(skimage.data.retina()).resize((64, 64)).crop((0, 8, 64, 56))
    photograph = decode_image(data, "a")
    assert photograph.format == "HEIC"
    assert np.abs(photograph.pixels.astype(int) - np.rot90(small, -1)).mean() < 8
    assert b"Camera" in photograph.exif
    with pytest.raises(ImageError, match="48x64 pixels are above the limit"):
        decode_image(data, "a", 1000)
    for length in (100, len(data) // 2):
        with pytest.raises(ImageError):
            decode_image(data[:length], "a")
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"^a: HEIC needs pi-heif: pip install 'retinashift\[heic\]'"):
        decode_image(data, "a")
