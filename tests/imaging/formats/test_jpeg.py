"""JPEG: little is lost; what the format cannot hold is refused."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from retinashift.imaging.files import check_target, decode_image, encode_image
from retinashift.imaging.formats.jpeg import decode_jpeg, encode_jpeg
from retinashift.imaging.photograph import ImageError, Photograph

LIMIT = 10**6


def jpeg(picture: Image.Image, **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def test_colour_keeps_its_full_resolution_and_loses_little(retina):
    data = encode_jpeg(Photograph(retina))
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == 0  # 4:4:4
    error = decode_jpeg(data, LIMIT).pixels.astype(float) - retina
    assert np.sqrt(np.mean(error**2)) < 3


def test_grey_stays_grey(retina):
    assert decode_jpeg(encode_jpeg(Photograph(np.ascontiguousarray(retina[..., 1]))), LIMIT).channels == 1


def test_what_jpeg_cannot_hold_is_refused(retina):
    with pytest.raises(ImageError, match="8 bit only"):
        encode_image("a.jpg", retina.astype(np.uint16))
    with pytest.raises(ImageError, match="alpha"):
        encode_image("a.jpg", np.dstack([retina, retina[..., 0]]))
    with pytest.raises(ImageError, match="65,500"):
        encode_image("a.jpg", np.zeros((1, 65501), np.uint8))
    with pytest.raises(ImageError, match="EXIF of 65,528 bytes"):
        encode_jpeg(Photograph(retina, exif=bytes(65528)))
    assert Image.open(io.BytesIO(encode_jpeg(Photograph(retina, exif=bytes(65527))))).info["exif"][6:] == bytes(65527)


PART = 65519  # bytes of a profile that one segment holds
WRITTEN_AND_READ_BACK = f"""
import io
import numpy as np
from PIL import Image
from retinashift.imaging.files import check_target, decode_image, encode_image
from retinashift.imaging.photograph import Photograph
from retinashift.imaging.provenance import Provenance
blob, pixels = np.random.default_rng(0).bytes(255 * {PART}), np.zeros((8, 8, 3), np.uint8)
around = [k * {PART} + d for k in (1, 2) for d in (-600, -587, -40, -22, -21, -20, -1, 0, 1)]
for size in [0, 1, 2, *around, 2**20, 254 * {PART} + 1, 255 * {PART}]:
    photograph = Photograph(pixels, icc=blob[:size], exif=b"II*\\0" + bytes(60000))
    data = encode_image("a.jpg", photograph, provenance=Provenance(4, "c" * 64, 1, 0, "f" * 64))
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.info.get("icc_profile", b"") == blob[:size], size
        assert b"retinashift" in picture.info["comment"], size
"""


def test_a_profile_of_any_size_is_written_beside_exif_and_comment():
    done = subprocess.run([sys.executable, "-c", WRITTEN_AND_READ_BACK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]


def test_a_profile_that_jpeg_cannot_hold_is_refused_before_the_work(retina):
    with pytest.raises(ImageError, match=f"a.jpg: ICC profile of 16,707,346 bytes; JPEG holds {255 * PART:,}"):
        check_target("a.jpg", Photograph(retina, icc=bytes(255 * PART + 1)), 4)
    check_target("a.jpg", Photograph(retina, icc=bytes(255 * PART)), 4)


def test_cmyk_and_truncated_files_are_refused(retina):
    picture = Image.fromarray(retina)
    with pytest.raises(ImageError, match="CMYK"):
        decode_jpeg(jpeg(picture.convert("CMYK")), LIMIT)
    data = jpeg(picture)
    for cut in (data[:-200], data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9"):
        with pytest.raises((ImageError, OSError), match="truncated"):
            decode_jpeg(cut, LIMIT)


def test_of_several_pictures_the_first_is_read_and_the_others_are_told_to_be_left_out(retina):
    buffer = io.BytesIO()
    Image.fromarray(retina).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(255 - retina)])
    photograph = decode_jpeg(buffer.getvalue(), LIMIT)
    assert np.array_equal(photograph.pixels, decode_jpeg(jpeg(Image.fromarray(retina)), LIMIT).pixels)
    assert "its other pictures" in photograph.left_out[0]
    with pytest.raises(ImageError, match="JPEG has one page only"):
        decode_image(buffer.getvalue(), "a.jpg", LIMIT, 2)


def test_a_resolution_above_what_its_header_holds_is_left_out_and_told(retina, caplog):
    assert decode_jpeg(encode_image("a.jpg", Photograph(retina, dpi=(70000.0, 300.0))), LIMIT).dpi is None
    assert "a.jpg: not carried over from the input: a resolution above JPEG's 65535 dpi" in caplog.text


def test_the_quality_is_chosen_and_only_jpeg_has_one(retina):
    coarse, fine = (encode_image("a.jpg", retina, quality=quality) for quality in (20, 95))
    assert len(coarse) < len(fine) == len(encode_image("a.jpg", retina))
    for path, quality, reason in (("a.jpg", 0, "1 to 100"), ("a.jpg", 101, "1 to 100"), ("a.png", 90, "PNG loses")):
        with pytest.raises(ImageError, match=reason):
            encode_image(path, retina, quality=quality)


def test_twelve_bits_are_named_as_what_they_are(retina):
    data = bytearray(jpeg(Image.fromarray(retina)))
    frame = data.index(b"\xff\xc0")
    data[frame + 4] = 12
    with pytest.raises(ImageError, match="12-bit JPEG; only 8-bit"):
        decode_jpeg(bytes(data), LIMIT)


def test_a_turn_that_only_xmp_calls_for_is_noted(retina):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    photograph = decode_jpeg(jpeg(Image.fromarray(retina[:40]), xmp=xmp), LIMIT)
    assert photograph.pixels.shape == (40, 128, 3)
    assert "orientation 6" in photograph.notes[0]
