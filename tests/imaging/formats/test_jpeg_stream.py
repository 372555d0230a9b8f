"""JPEG streams: their claims are told before decoding, and a stream that was cut is told from a whole one."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.dicom.read import decode_lossless
from retinashift.imaging.formats.jpeg import check_whole, decode_jpeg, frame_claims, lacks_scans
from retinashift.imaging.photograph import ImageError

KINDS = (
    {}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 5}, {"restart_marker_rows": 1},
    {"progressive": True, "restart_marker_rows": 1},
)  # fmt: skip


def coded(pixels: np.ndarray, **settings) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_whole_streams_pass_whatever_their_kind(retina, kind, quality, subsampling):
    for pixels in (retina[:37, :90], retina[:, :17], retina[:64, :64, 1]):
        data = coded(np.ascontiguousarray(pixels), quality=quality, subsampling=subsampling, **kind)
        for behind in (b"", bytes(3), b"\xff\xd8 another \xff\xd9"):
            check_whole(data + behind, decoded(data), decoded)
        check_whole(data[:-2] + b"\xff\xff\xff\xd9", decoded(data), decoded)  # fill bytes before the last marker


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_stream_cut_short_is_refused_though_its_end_was_put_back(retina, kind, share):
    data = coded(retina, quality=90, **kind)
    cut = data[: int(share * len(data))]
    with pytest.raises(ImageError, match="it has no end"):
        check_whole(cut, decoded(data), decoded)
    with pytest.raises((ImageError, OSError), match="truncated|broken data"):  # Pillow's own: a cut table
        check_whole(cut + b"\xff\xd9", decoded(cut + b"\xff\xd9"), decoded)


def test_a_stream_cut_between_its_restart_intervals_is_refused(retina):
    data = coded(retina, quality=90, restart_marker_rows=1)
    cut = data[: data.index(b"\xff\xd2")] + b"\xff\xd9"
    with pytest.raises(ImageError, match="truncated JPEG"):
        check_whole(cut, decoded(cut), decoded)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_scans_are_missed_in_progressive_streams_that_lost_them_and_in_no_other(retina, kind):
    for pixels in (retina, np.ascontiguousarray(retina[..., 1])):
        data = coded(pixels, quality=90, **kind)
        assert not lacks_scans(data)
        starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
        for start in starts[1:]:
            assert lacks_scans(data[:start] + b"\xff\xd9")


def test_a_progressive_photograph_without_its_last_scans_is_read_with_a_note(retina):
    data = coded(retina, quality=90, progressive=True)
    assert decode_jpeg(data, 10**6).notes == ()
    (note,) = decode_jpeg(data[: data.rindex(b"\xff\xc4")] + b"\xff\xd9", 10**6).notes
    assert "last scans are missing" in note


def test_streams_of_very_many_scans_are_refused(retina):
    data = coded(retina[:8, :8])
    scan = data[data.index(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="more than 1000 scans"):
        check_whole(data[:-2] + 1000 * scan + b"\xff\xd9", decoded(data), decoded)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_streams_are_told_apart_too(retina, dtype):
    data = bytes(imagecodecs.ljpeg_encode(retina[..., 1].astype(dtype) * 3))
    check_whole(data, decode_lossless(data), decode_lossless)
    cut = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(ImageError, match="truncated JPEG"):
        check_whole(cut, decode_lossless(cut), decode_lossless)


@pytest.mark.parametrize("codec", ["jpeg8", "jpegls", "jpeg2k"])
def test_size_and_components_are_what_the_header_says(retina, codec):
    for pixels, components in ((retina[:40, :70], 3), (retina[:40, :70, 0], 1)):
        data = bytes(getattr(imagecodecs, f"{codec}_encode")(np.ascontiguousarray(pixels)))
        assert frame_claims(data) == (70, 40, components)
        for length in (0, 1, 2, 8, 20):
            assert frame_claims(data[:length]) is None
