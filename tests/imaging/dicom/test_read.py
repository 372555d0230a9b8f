"""DICOM in: every usual way of storing a fundus photograph gives the same pixels; bombs and the rest are refused."""

import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import FileMetaDataset

from builders.dicom import J2K, JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS, RLE, photography, written
from retinashift.imaging.dicom import read
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import decode_image
from retinashift.imaging.photograph import ImageError

LIMIT = 10**6


@pytest.fixture
def deep(retina):
    return retina.astype(np.uint16) * 257 + 3


def test_plain_colour_grey_and_16_bit_come_as_stored(retina, deep):
    for pixels in (retina, retina[..., 1], deep, deep[..., 1], retina[:31, :33], retina[:31, :33, 0]):
        pixels = np.ascontiguousarray(pixels)
        photograph = decode_dicom(written(photography(pixels)), LIMIT)
        assert photograph.pixels.dtype == pixels.dtype
        assert np.array_equal(photograph.pixels, pixels)
        assert photograph.dpi == pytest.approx((2540, 25.4 / 0.012))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"])
def test_implicit_and_deflated_syntaxes_make_no_difference(retina, syntax):
    assert np.array_equal(decode_dicom(written(photography(retina), syntax), LIMIT).pixels, retina)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG_LS, imagecodecs.jpegls_encode),
        (J2K, lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)),
        (JPEG_LOSSLESS, imagecodecs.ljpeg_encode),
    ],
    ids=["JPEG-LS", "JPEG 2000", "lossless JPEG"],
)
def test_lossless_codings_give_the_pixels_back(retina, deep, syntax, encode):
    for pixels in (np.ascontiguousarray(retina[..., 1]), np.ascontiguousarray(deep[..., 1]), retina):
        if syntax == JPEG_LOSSLESS and pixels.ndim == 3:
            continue  # imagecodecs writes no colour there
        data = written(photography(pixels), syntax, bytes(encode(pixels)))
        assert np.array_equal(decode_dicom(data, LIMIT).pixels, pixels)


def test_run_lengths_give_the_pixels_back(retina, deep):
    for pixels in (retina, np.ascontiguousarray(deep[..., 1])):
        ds = photography(pixels)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        ds.compress(RLE)
        assert np.array_equal(decode_dicom(written(ds, RLE), LIMIT).pixels, pixels)


def test_baseline_jpeg_and_ybr_are_read_as_colour(retina):
    smooth = np.repeat(np.repeat(retina[::8, ::8], 8, 0), 8, 1)
    coded = imagecodecs.jpeg8_encode(smooth, level=98, subsampling="422")
    ds = photography(smooth, PhotometricInterpretation="YBR_FULL_422")
    photograph = decode_dicom(written(ds, "1.2.840.10008.1.2.4.50", bytes(coded)), LIMIT)
    assert np.abs(photograph.pixels.astype(int) - smooth).mean() < 3
    from pydicom.pixels.processing import convert_color_space

    ybr = convert_color_space(retina, "RGB", "YBR_FULL")
    again = decode_dicom(written(photography(ybr, PhotometricInterpretation="YBR_FULL")), LIMIT).pixels
    assert np.abs(again.astype(int) - retina).max() <= 3


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_LOSSLESS])
def test_a_jpeg_frame_with_half_its_data_missing_is_refused(retina, syntax):
    grey = np.ascontiguousarray(retina[..., 1])
    coded = bytes((imagecodecs.jpeg8_encode if syntax == JPEG_BASELINE else imagecodecs.ljpeg_encode)(grey))
    assert decode_dicom(written(photography(grey), syntax, coded + bytes(2)), LIMIT).pixels.shape == grey.shape
    half = coded[: len(coded) // 2].rstrip(b"\xff")
    for cut in (half, half + bytes(4), half + b"\xff\xd9", coded[:-2]):
        with pytest.raises(ImageError, match="truncated"):
            decode_dicom(written(photography(grey), syntax, cut), LIMIT)


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_LS, J2K])
def test_a_frame_of_other_components_is_refused_before_it_is_decoded(retina, syntax, monkeypatch):
    encode = {JPEG_BASELINE: "jpeg8", JPEG_LS: "jpegls", J2K: "jpeg2k"}[syntax]
    coded = bytes(getattr(imagecodecs, f"{encode}_encode")(retina))
    for name in ("_decode_jpeg", "decode_jpegls", "codestream"):
        monkeypatch.setattr(read, name, lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="has 3 components, not 1"):
        decode_dicom(written(photography(np.ascontiguousarray(retina[..., 1])), syntax, coded), LIMIT)


def test_the_size_that_is_checked_is_that_of_what_is_decoded(retina):
    grey = np.ascontiguousarray(retina[..., 1])
    small, large = (bytes(imagecodecs.jpeg2k_encode(p, codecformat="j2k")) for p in (grey, np.tile(grey, (3, 3))))
    jpeg = bytes(imagecodecs.jpeg8_encode(np.tile(grey, (3, 3))))
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 60) + small[:60]
    with pytest.raises(ImageError, match="coded frame is not 128x128"):
        decode_dicom(written(photography(grey), JPEG_BASELINE, jpeg[:2] + comment + jpeg[2:]), LIMIT)
    box = struct.pack(">I4s", 12, b"jP  ") + b"\r\n\x87\n" + struct.pack(">I4s", 8 + len(small), b"free")
    boxes = box + small + struct.pack(">I4s", 0, b"jp2c") + large
    pixels = decode_dicom(written(photography(grey), J2K, boxes), LIMIT).pixels
    assert pixels.shape == grey.shape


def test_palettes_become_rgb(retina):
    index = np.ascontiguousarray(retina[..., 1])
    tables = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint8)
    changes = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        changes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        changes[f"{name}PaletteColorLookupTableData"] = (table.astype("<u2") * 257).tobytes()
    pixels = decode_dicom(written(photography(index, **changes)), LIMIT).pixels
    assert np.array_equal(pixels, tables.T[index])


def test_inverted_grey_is_upright_and_fewer_stored_bits_fill_the_range():
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    ds = photography(grey, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    pixels = decode_dicom(written(ds), LIMIT).pixels
    assert (pixels[0, 0], pixels[-1, -1]) == (65535, 0)
    assert len(np.unique(pixels)) == 4096


def test_a_frame_is_chosen_by_number(retina):
    frames = np.stack([retina, 255 - retina])
    data = written(photography(frames, frames=2))
    assert np.array_equal(decode_dicom(data, LIMIT, 2).pixels, 255 - retina)
    for frame, reason in ((None, "2 frames; choose one with --page"), (3, "without a frame 3"), (0, "a frame 0")):
        with pytest.raises(ImageError, match=reason):
            decode_dicom(data, LIMIT, frame)


def test_what_is_not_read_is_refused_by_name(retina):
    for changes, reason in (
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage"),
        ({"PixelRepresentation": 1}, "signed"),
        ({"BitsAllocated": 32}, "of 32 bits"),
        ({"Rows": None}, "without Rows"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
        ({"Rows": 0}, "empty picture"),
        ({"Rows": 60000, "Columns": 60000}, "above the limit"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_dicom(written(photography(retina, **changes)), LIMIT)
    with pytest.raises(ValueError, match="pixel|bytes|length"):
        decode_dicom(written(photography(retina, Rows=200)), LIMIT)
    lying = bytes(imagecodecs.jpegls_encode(retina[:64]))
    with pytest.raises(ImageError, match="coded frame is not 128x128"):
        decode_dicom(written(photography(retina), JPEG_LS, lying), LIMIT)


@pytest.mark.parametrize("syntax", [JPEG_LS, "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_a_file_that_was_cut_is_called_truncated(retina, syntax, share):
    coded = bytes(imagecodecs.jpegls_encode(retina)) if syntax == JPEG_LS else None
    data = written(photography(retina), syntax, coded)
    with pytest.raises(ImageError, match="truncated"):
        decode_dicom(data[: int(share * len(data))], LIMIT)
    if coded:
        with pytest.raises(ImageError, match="truncated"):
            decode_dicom(data[:-8], LIMIT)  # all of it but the end of the sequence of fragments


def test_a_deflate_bomb_is_refused(retina):
    data = written(photography(retina), "1.2.840.10008.1.2.1.99")
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(2**27)) + packer.flush()
    with pytest.raises(ImageError, match="more than 50,000 elements"):
        decode_dicom(data[:start] + bomb, 1000)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_sequences_nested_300_deep_are_refused(retina, syntax):
    data = written(photography(retina), syntax)
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    head = b"\x40\0\x30\xa7" + (b"SQ\0\0" if syntax.endswith("2.1") else b"") + b"\xff\xff\xff\xff"
    nested = (head + b"\xfe\xff\0\xe0\xff\xff\xff\xff") * 300
    with pytest.raises(ImageError, match="recursion"):
        decode_image(data[:start] + nested + data[start:], "a")


def test_without_pydicom_one_line_tells_what_to_install(retina, monkeypatch):
    data = written(photography(retina))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"^a: DICOM needs pydicom: pip install 'retinashift\[dicom\]'$"):
        decode_image(data, "a")
