"""Binary PPM and PGM, plain and gzipped, 8 and 16 bit."""

import gzip
import io
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.files import decode_image, encode_image
from retinashift.imaging.formats import bitmaps
from retinashift.imaging.formats.bitmaps import decode_ppm, encode_ppm
from retinashift.imaging.photograph import ImageError, Photograph

LIMIT = 10**6


def test_files_of_other_programs_are_read(retina):
    buffer = io.BytesIO()
    Image.fromarray(retina).save(buffer, "PPM")
    for data in (buffer.getvalue(), gzip.compress(buffer.getvalue())):
        assert np.array_equal(decode_ppm(data, LIMIT).pixels, retina)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_ppm(Photograph(retina))))), retina)


def test_sixteen_bit_is_big_endian():
    pixels = np.array([[1, 258], [65535, 0]], np.uint16)
    assert encode_ppm(Photograph(pixels)) == b"P5\n2 2\n65535\n\0\1\1\2\xff\xff\0\0"
    assert np.array_equal(decode_ppm(encode_ppm(Photograph(pixels)), LIMIT).pixels, pixels)


def test_comments_are_skipped_and_one_space_ends_the_header():
    data = b"P5 # made by hand\n# 9 9\n2\t1 # size\n255\n #"
    assert decode_ppm(data, LIMIT).pixels.tolist() == [[ord(" "), ord("#")]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6\n2 2\n255\n12345678901", "truncated PPM: 11 of 12"),
        (b"P6\n60000 60000\n255\n", "above the limit"),
        (b"P5\n0 5\n255\n", "empty"),
        (b"P5\n2 2\n1023\n12345678", "the header allows 1023"),
        (b"P5\n2 2\n65536\n12345678", "maxval 65536"),
        (b"P3\n1 1\n100\n1 2 101\n", "above its maxval 100"),
        (b"P3\n1 1\n100\n1 2 3 4\n", "data behind"),
        (b"P3\n1 1\n100\n1 2\n", "2 of 3 numbers"),
        (b"P3\n1 1\n100\n1 -2 3\n", "plain numbers"),
        (b"P4\n8 1\n\0", "P4 of the PNM family|valid header"),
        (b"P6\nabc", "valid header"),
        (b"P6\n" + b"#" * 10**5, "valid header"),
    ],
)
def test_the_reason_of_a_refusal_is_named(data, reason):
    for stored in (data, gzip.compress(data)):
        with pytest.raises(ImageError, match=reason):
            decode_ppm(stored, LIMIT)


def test_gzip_is_unpacked_no_further_than_the_header_promises(monkeypatch):
    bomb, unpacked = gzip.compress(b"P5\n2 2\n255\nabcd" + bytes(2**24)), []

    class Counted:
        def __init__(self, bits):
            self.inner = zlib.decompressobj(bits)

        def decompress(self, data, limit):
            unpacked.append(self.inner.decompress(data, limit))
            return unpacked[-1]

    monkeypatch.setattr(bitmaps, "zlib", SimpleNamespace(decompressobj=Counted))
    with pytest.raises(ImageError, match="data behind its pixels"):
        decode_ppm(bomb, LIMIT)
    assert max(map(len, unpacked)) <= 4096


@pytest.mark.parametrize("behind", [b"\n\n", b"P5\n2 2\n255\nefgh"])
def test_data_behind_the_pixels_are_refused(behind):
    data = b"P5\n2 2\n255\nabcd"
    whole = gzip.compress(data)
    assert decode_ppm(whole + bytes(512), LIMIT).pixels.tobytes() == b"abcd"
    for stored in (data + behind, gzip.compress(data + behind), whole + gzip.compress(behind)):
        with pytest.raises(ImageError, match="data behind its pixels"):
            decode_ppm(stored, LIMIT)


def test_a_header_changed_to_cr_lf_is_refused():
    with pytest.raises(ImageError, match="CR LF"):
        decode_ppm(b"P5\r\n2 2\r\n255\r\nabcd", LIMIT)
    assert decode_ppm(b"P5\n2 2\n255\r\nabc", LIMIT).pixels.tobytes() == b"\nabc"  # a raster may begin with a line feed


def test_gzip_whose_sum_is_wrong_or_missing_is_an_error(retina):
    stored = gzip.compress(encode_ppm(Photograph(retina)))
    wrong = stored[:-8] + bytes((stored[-8] ^ 1,)) + stored[-7:]
    with pytest.raises(ImageError, match="truncated or damaged PPM .*incorrect data check"):
        decode_image(wrong, "a")
    for missing in (1, 4, 8):
        with pytest.raises(ImageError, match="gzip without its end"):
            decode_image(stored[:-missing], "a")


def test_alpha_is_refused():
    with pytest.raises(ImageError, match="alpha"):
        encode_image("a.ppm", np.zeros((2, 2, 4), np.uint8))


def test_every_maxval_fills_the_range_and_plain_text_is_read():
    deep = np.array([[0, 512, 1023]], ">u2").tobytes()
    for data, expected in (
        (b"P5\n3 1\n1023\n" + deep, [[0, 32800, 65535]]),
        (b"P5\n3 1\n3\n\0\1\3", [[0, 85, 255]]),
        (b"P2 # text\n3 1\n1023\n0 512 # half\n1023\n", [[0, 32800, 65535]]),
        (b"P3\n1 1\n255\n1 2 3\n", [[[1, 2, 3]]]),
    ):
        for stored in (data, gzip.compress(data)):
            assert decode_ppm(stored, LIMIT).pixels.tolist() == expected


def test_a_line_break_that_an_editor_left_is_harmless():
    for behind in (b"\n", b"\r\n"):
        assert decode_ppm(b"P5\n2 2\n255\nabcd" + behind, LIMIT).pixels.tobytes() == b"abcd"
