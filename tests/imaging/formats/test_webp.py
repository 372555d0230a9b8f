"""WebP: lossless out, sizes checked before the canvas exists, the rest refused."""

import io

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.files import encode_image
from retinashift.imaging.formats.boxed import decode_webp, encode_webp
from retinashift.imaging.photograph import ImageError, Photograph

LIMIT = 10**6


def webp(picture: Image.Image, **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", **settings)
    return buffer.getvalue()


def test_colour_and_alpha_come_back_even_where_transparent(retina):
    clear = np.dstack([retina, np.zeros_like(retina[..., 0])])
    for pixels in (retina, clear):
        assert np.array_equal(decode_webp(encode_webp(Photograph(pixels)), LIMIT).pixels, pixels)


@pytest.mark.parametrize("settings", [{}, {"lossless": True}, {"icc_profile": b"profile"}], ids=str)
def test_the_limit_holds_for_each_kind_of_header(retina, settings):
    data = webp(Image.fromarray(retina), **settings)
    assert decode_webp(data, LIMIT).pixels.shape == retina.shape
    with pytest.raises(ImageError, match="128x128 pixels are above the limit"):
        decode_webp(data, 1000)


def test_what_webp_cannot_hold_is_refused(retina):
    for pixels, reason in (
        (retina.astype(np.uint16), "8 bit only"),
        (np.ascontiguousarray(retina[..., 0]), "grey"),
        (np.zeros((1, 16384, 3), np.uint8), "16,383"),
    ):
        with pytest.raises(ImageError, match=reason):
            encode_image("a.webp", pixels)


def test_animations_and_headless_files_are_refused(retina):
    pictures = [Image.fromarray(retina), Image.fromarray(255 - retina)]
    with pytest.raises(ImageError, match="animated"):
        decode_webp(webp(pictures[0], save_all=True, append_images=pictures[1:]), LIMIT)
    for length in range(12, 30):
        with pytest.raises(ImageError, match="header"):
            decode_webp(webp(pictures[0])[:length], LIMIT)
