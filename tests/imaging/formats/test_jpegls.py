"""JPEG-LS: intact streams come back, damaged ones are our error, in bounded time."""

import imagecodecs
import numpy as np
import pytest

from retinashift.imaging.formats import jpegls
from retinashift.imaging.photograph import ImageError


def test_intact_streams_come_back(retina):
    for pixels in (retina, np.ascontiguousarray(retina[..., 1]).astype(np.uint16) * 257):
        assert np.array_equal(jpegls.decode_jpegls(bytes(imagecodecs.jpegls_encode(pixels)), 128 * 128), pixels)


def test_damage_and_slowness_are_our_errors(retina, monkeypatch):
    data = bytes(imagecodecs.jpegls_encode(retina))
    with pytest.raises(ImageError, match="damaged JPEG-LS"):
        jpegls.decode_jpegls(data[:200], 128 * 128)
    monkeypatch.setattr(jpegls, "_CHILD", "import time; time.sleep(30)")
    monkeypatch.setattr(jpegls, "_SECONDS", 0.2)
    with pytest.raises(ImageError, match="not decoded in 0 s"):
        jpegls.decode_jpegls(data, 128 * 128)
