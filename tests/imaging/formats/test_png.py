"""PNG: every depth and colour type, metadata, and refusals before decoding."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.files import encode_image
from retinashift.imaging.formats.png import SIGNATURE, decode_png, encode_png
from retinashift.imaging.photograph import ImageError, Photograph

LIMIT = 10**6


def png(picture: Image.Image, **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **settings)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_depths_and_channels_come_back(dtype, channels):
    shape = (7, 5) if channels == 1 else (7, 5, channels)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    again = decode_png(encode_png(Photograph(pixels)), LIMIT)
    assert again.pixels.dtype == dtype
    assert np.array_equal(again.pixels, pixels)


def test_palettes_become_rgb_and_transparent_colours_become_alpha(retina):
    palette = Image.fromarray(retina).quantize(16)
    assert np.array_equal(decode_png(png(palette), LIMIT).pixels, np.asarray(palette.convert("RGB")))
    clear = decode_png(png(palette, transparency=3), LIMIT)
    assert clear.channels == 4
    assert np.array_equal(clear.pixels[..., 3] == 0, np.asarray(palette) == 3)


def test_bitmaps_become_black_and_white():
    picture = Image.fromarray(np.eye(8, dtype=bool))
    assert np.array_equal(decode_png(png(picture), LIMIT).pixels, np.eye(8, dtype=np.uint8) * 255)


def test_metadata_written_is_metadata_read(retina):
    photograph = Photograph(retina, icc=b"profile" * 40, exif=Image.Exif().tobytes()[6:], dpi=(300.0, 150.0))
    again = decode_png(encode_png(photograph), LIMIT)
    assert again.icc == photograph.icc
    assert again.dpi == pytest.approx((300, 150), abs=0.02)
    other = Image.open(io.BytesIO(encode_png(photograph)))
    other.load()
    assert other.info["icc_profile"] == photograph.icc
    assert other.info["dpi"] == pytest.approx((300, 150), abs=0.02)


def test_what_makes_colours_look_as_they_do_is_kept(retina):
    data = png(Image.fromarray(retina))
    colour = [(b"cHRM", bytes(range(32))), (b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\1")]
    data = data[:33] + b"".join(chunk(*one) for one in colour) + data[33:]
    photograph = decode_png(data, LIMIT)
    assert photograph.notes == ()
    again = encode_png(photograph)
    for one in colour:
        assert again.index(chunk(*one)) < again.index(b"IDAT")
    assert np.array_equal(decode_png(again, LIMIT).pixels, retina)


def test_other_formats_tell_that_a_gamma_is_lost(retina, caplog):
    linear = Photograph(retina, colour=((b"gAMA", struct.pack(">I", 100000)),))
    usual = Photograph(retina, colour=((b"gAMA", struct.pack(">I", 45455)),))
    for suffix, photograph, told in (("tif", linear, 1), ("tif", usual, 0), ("png", linear, 0)):
        caplog.clear()
        encode_image(f"a.{suffix}", photograph)
        assert len(caplog.messages) == told


def test_a_damaged_profile_is_left_out_and_noted(retina):
    data = png(Image.fromarray(retina))
    photograph = decode_png(data[:33] + chunk(b"iCCP", b"x\0\0rubbish") + data[33:], LIMIT)
    assert photograph.icc is None
    assert "damaged ICC profile is left out" in photograph.notes[0]
    assert np.array_equal(photograph.pixels, retina)


def test_a_header_of_60000_squared_is_refused_before_decoding():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match="60000x60000 pixels are above the limit"):
        decode_png(SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""), LIMIT)


def test_a_file_cut_anywhere_is_an_error(retina):
    data = png(Image.fromarray(retina))
    for length in (*range(8, 60), len(data) // 2, len(data) - 13, len(data) - 1):
        with pytest.raises((ImageError, imagecodecs.PngError)):
            decode_png(data[:length], LIMIT)


def test_a_file_without_pixels_is_refused_in_our_words(retina):
    """Those of libpng differ from run to run, or are no text."""
    data = png(Image.fromarray(retina))
    place = data.index(b"IDAT") - 4
    with pytest.raises(ImageError, match="PNG without pixels"):
        decode_png(data[:place] + chunk(b"IEND", b""), LIMIT)


def test_a_changed_byte_of_the_pixels_is_an_error(retina):
    data = bytearray(png(Image.fromarray(retina)))
    data[len(data) // 2] ^= 1
    with pytest.raises(imagecodecs.PngError):
        decode_png(bytes(data), LIMIT)


def test_animations_and_inflated_profiles_are_refused(retina):
    picture = Image.fromarray(retina)
    with pytest.raises(ImageError, match="animated"):
        decode_png(png(picture, save_all=True, append_images=[Image.new("RGB", picture.size)]), LIMIT)
    data = png(picture)
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26)))
    with pytest.raises(ImageError, match="ICC profile above"):
        decode_png(data[:33] + bomb + data[33:], LIMIT)


@pytest.mark.parametrize("place", ["eXIf", "zTXt", "iTXt"])
def test_a_picture_is_turned_upright_wherever_a_png_keeps_its_orientation(retina, place):
    exif = Image.Exif()
    exif[274] = 6
    block = exif.tobytes()
    stored = retina[:40]
    data = png(Image.fromarray(stored))
    hexadecimal = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    xmp = b"<rdf:Description><tiff:Orientation>6</tiff:Orientation></rdf:Description>"
    body = {
        "eXIf": block[6:],
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(hexadecimal),
        "iTXt": b"XML:com.adobe.xmp" + bytes(5) + xmp,
    }[place]
    photograph = decode_png(data[:33] + chunk(place.encode(), body) + data[33:], LIMIT)
    assert np.array_equal(photograph.pixels, np.rot90(stored, -1))


def test_what_libpng_does_not_like_about_metadata_is_not_printed(retina, capfd):
    data = png(Image.fromarray(retina))
    decode_png(data[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")) + data[33:], LIMIT)
    assert capfd.readouterr() == ("", "")
