"""Coded frames of DICOM: intact streams come back, damaged ones are refused in bounded time."""

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset

from retinashift.imaging.dicom.read import decode_jpegls, read_frame
from retinashift.imaging.dicom.structure import BIG_ENDIAN, Structure
from retinashift.imaging.formats.boxed import decode_apart
from retinashift.imaging.photograph import ImageError


def rgb_header(side: int, frames: int) -> Dataset:
    header = Dataset()
    header.Rows = header.Columns = side
    header.SamplesPerPixel, header.BitsAllocated, header.NumberOfFrames = 3, 8, frames
    header.PhotometricInterpretation = "RGB"
    return header


def test_intact_jpegls_streams_come_back(retina):
    for pixels in (retina, np.ascontiguousarray(retina[..., 1]).astype(np.uint16) * 257):
        assert np.array_equal(decode_jpegls(bytes(imagecodecs.jpegls_encode(pixels)), 128 * 128), pixels)


def test_damaged_and_endless_jpegls_streams_are_refused(retina):
    data = bytes(imagecodecs.jpegls_encode(retina))
    with pytest.raises(ImageError, match="damaged JPEG-LS"):
        decode_jpegls(data[:200], 128 * 128)
    with pytest.raises(ImageError, match=r"damaged JPEG-LS$"):  # ended by its own timer, not by ours of a minute
        decode_apart("JPEG-LS", "imagecodecs", "while True: pass", data, 0.5)


@pytest.mark.parametrize("frames", [1, 2])
def test_bytes_in_words_of_the_other_order_come_back_to_the_last(frames):
    """A frame of 27 bytes ends within a word, which holds its last byte first."""
    pixels = np.arange(27 * frames, dtype=np.uint8).reshape(frames, 3, 3, 3)
    raw = pixels.tobytes() + b"\0" * (pixels.size % 2)
    swapped = np.frombuffer(raw, "<u2").astype(">u2").tobytes()
    structure = Structure(BIG_ENDIAN, Dataset(), pixels=swapped, pixel_vr=b"OW")
    for index in range(frames):
        assert np.array_equal(read_frame(structure, rgb_header(3, frames), index), pixels[index])


@pytest.mark.parametrize("marker", [b"", b"\xff\xee\0\x0cAdobe\0\0\0\0\0"])
def test_a_stream_that_states_no_colours_has_those_of_the_header(marker):
    """An Adobe segment without its last byte, which says how colours are coded, says nothing."""
    red = np.full((16, 16, 3), (200, 30, 40), np.uint8)
    coded = bytes(imagecodecs.jpeg8_encode(red, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444"))
    start = coded.index(b"\xff\xdb")  # behind the segments that state colours
    stream = b"\xff\xd8" + marker + coded[start:]
    structure = Structure("1.2.840.10008.1.2.4.50", Dataset(), fragments=[b"", stream])
    found = read_frame(structure, rgb_header(16, 1), 0)
    assert np.abs(found.astype(int) - red).max() <= 2
