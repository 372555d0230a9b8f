"""Coded frames of DICOM: intact streams come back, damaged ones are refused in bounded time."""

import imagecodecs
import numpy as np
import pytest

from retinashift.imaging.dicom import frames
from retinashift.imaging.dicom.frames import decode_jpegls
from retinashift.imaging.photograph import ImageError


def test_intact_jpegls_streams_come_back(retina):
    for pixels in (retina, np.ascontiguousarray(retina[..., 1]).astype(np.uint16) * 257):
        assert np.array_equal(decode_jpegls(bytes(imagecodecs.jpegls_encode(pixels)), 128 * 128), pixels)


def test_damaged_and_endless_jpegls_streams_are_refused(retina, monkeypatch):
    data = bytes(imagecodecs.jpegls_encode(retina))
    with pytest.raises(ImageError, match="damaged JPEG-LS"):
        decode_jpegls(data[:200], 128 * 128)
    monkeypatch.setattr(frames, "_CHILD", frames._CHILD.partition("out =")[0] + "[None for _ in iter(int, 1)]")
    with pytest.raises(ImageError, match="damaged JPEG-LS"):  # ended by its own timer, not by ours of a minute
        decode_jpegls(data, 128 * 128)
