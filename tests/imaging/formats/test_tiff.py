"""TIFF: what microscopes and cameras write is read, what this module writes is read by others, the rest is refused."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import IFD, Base

from retinashift.imaging.formats.tiff import decode_tiff, encode_tiff
from retinashift.imaging.photograph import ImageError, Photograph

LIMIT = 10**6


def tiff(pixels: np.ndarray, **settings) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_depths_and_channels_come_back_here_and_in_tifffile(dtype, channels):
    shape = (700, 5) if channels == 1 else (700, 5, channels)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    data = encode_tiff(Photograph(pixels))
    assert np.array_equal(decode_tiff(data, LIMIT).pixels, pixels)
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), pixels)


def test_strips_of_a_large_picture_follow_one_another():
    pixels = np.random.default_rng(0).integers(0, 65535, (700, 1000), dtype=np.uint16)  # two strips of 2**20 bytes
    data = encode_tiff(Photograph(pixels))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages.first.dataoffsets) == 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


@pytest.mark.parametrize(
    "settings",
    [
        {"byteorder": ">"},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits"},
        {"planarconfig": "separate"},
        {"tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True},
        {"rowsperstrip": 7},
    ],
    ids=str,
)
def test_ways_of_storing_make_no_difference(retina, settings):
    pixels = retina[:50, :61].astype(np.uint16) * 257
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in settings else pixels
    again = decode_tiff(tiff(stored, photometric="rgb", **settings), LIMIT).pixels
    assert again.dtype == np.uint16
    assert again.dtype.isnative
    assert np.array_equal(again, pixels)


def test_metadata_written_is_metadata_read_here_and_in_pillow(retina):
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Artist] = "Camera", "Jürgen"
    exif.get_ifd(IFD.Exif)[Base.ExposureTime] = 0.01
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    photograph = Photograph(retina, icc=b"profile" * 30, exif=exif.tobytes()[6:], dpi=(300.0, 150.5))
    data = encode_tiff(photograph)
    again = decode_tiff(data, LIMIT)
    assert again.icc == photograph.icc
    assert again.dpi == pytest.approx((300, 150.5))
    other = Image.open(io.BytesIO(data))
    assert other.info["icc_profile"] == photograph.icc
    for read in (other.getexif(), _loaded(again.exif)):
        assert read[Base.Make] == "Camera"
        assert read.get_ifd(IFD.Exif) == {Base.ExposureTime: 0.01}
        assert read.get_ifd(IFD.GPSInfo) == {1: "N"}


def _loaded(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def test_other_kinds_of_tiff_are_refused_by_name(retina):
    grey = np.ascontiguousarray(retina[..., 0])
    for data, reason in (
        (tiff(np.stack([grey, grey]), photometric="minisblack"), "several pages"),
        (tiff(grey.astype(np.float32)), "32 bit IEEEFP"),
        (tiff(np.dstack([retina, grey]), photometric="separated"), "SEPARATED"),
        (tiff(retina, photometric="cielab"), "CIELAB"),
        (tiff(retina, photometric="rgb", compression="webp"), "compressed with WEBP"),
        (tiff(np.dstack([retina, grey]), photometric="rgb", extrasamples=["assocalpha"]), "premultiplied"),
        (tiff(np.zeros((16, 16, 6), np.uint8), photometric="minisblack", planarconfig="contig"), "6 samples"),
        (tiff(grey.astype(np.int16)), "16 bit INT"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_tiff(data, LIMIT)


def test_a_page_above_the_limit_is_refused_before_decoding():
    data = bytearray(tiff(np.zeros((8, 8), np.uint8)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags["ImageWidth"].valueoffset
    data[place : place + 2] = (60000).to_bytes(2, "little")
    with pytest.raises(ImageError, match="60000x8 pixels are above the limit of 1,000"):
        decode_tiff(bytes(data), 1000)


def test_a_file_without_its_last_bytes_is_refused(retina):
    data = tiff(retina)  # the pixels come last
    with pytest.raises(ImageError, match="pixels are missing"):
        decode_tiff(data[:-1], LIMIT)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_chosen_page_comes_with_its_own_metadata(byteorder, bigtiff):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=byteorder, bigtiff=bigtiff) as writer:
        for page in (1, 2, 3):
            turned = [(274, 3, 1, 6 if page == 3 else 1, True), (271, 2, 0, f"Camera {page}", True)]
            resolution = {"resolution": (300, 100 + page), "resolutionunit": "INCH"}
            writer.write(np.full((6, 9), page, np.uint16), extratags=turned, metadata=None, **resolution)
    for page, shape, dpi in ((1, (6, 9), (300, 101)), (2, (6, 9), (300, 102)), (3, (9, 6), (103, 300))):
        photograph = decode_tiff(buffer.getvalue(), LIMIT, page)
        assert photograph.pixels.shape == shape
        assert (photograph.pixels == page).all()
        assert photograph.dpi == dpi
        assert f"Camera {page}".encode() in photograph.exif
    for page, reason in ((None, "choose one with --page"), (0, "without a page 0"), (4, "without a page 4")):
        with pytest.raises(ImageError, match=reason):
            decode_tiff(buffer.getvalue(), LIMIT, page)


@pytest.mark.parametrize(
    ("settings", "program"),
    [({"imagej": True}, "ImageJ"), ({"ome": True}, "OME"), ({}, "tifffile")],
    ids=["ImageJ", "OME", "tifffile"],
)
def test_descriptions_that_tell_sizes_are_left_out_and_noted(settings, program):
    data = tiff(np.zeros((20, 30), np.uint16), **settings)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        description = file.pages.first.description
    photograph = decode_tiff(data, LIMIT)
    assert photograph.left_out == (f"the description in which {program} states sizes",)
    assert description.encode() not in encode_tiff(photograph)


def test_descriptions_for_people_stay():
    photograph = decode_tiff(tiff(np.zeros((20, 30), np.uint16), description="left eye", metadata=None), LIMIT)
    assert photograph.left_out == ()
    assert b"left eye\0" in encode_tiff(photograph)


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_calibration_by_imagej_becomes_a_resolution(unit):
    data = tiff(np.zeros((20, 30), np.uint8), imagej=True, resolution=(0.2, 0.1), metadata={"unit": unit})
    assert f"unit={unit}".encode() in data
    assert decode_tiff(data, LIMIT).dpi == pytest.approx((5080, 2540))


def test_a_channel_of_no_stated_meaning_never_hides_the_picture(retina):
    pixels = np.dstack([retina, np.zeros_like(retina[..., :1])])
    photograph = decode_tiff(tiff(pixels, photometric="rgb", extrasamples=["unspecified"], metadata=None), LIMIT)
    assert np.array_equal(photograph.pixels, retina)
    assert "channel 4" in photograph.notes[0]
    plain = decode_tiff(tiff(pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None), LIMIT)
    assert (plain.notes, plain.channels) == ((), 4)


def test_opaque_premultiplied_alpha_is_plain_alpha(retina):
    pixels = np.dstack([retina, np.full_like(retina[..., :1], 255)])
    data = tiff(pixels, photometric="rgb", extrasamples=["assocalpha"])
    assert np.array_equal(decode_tiff(data, LIMIT).pixels, pixels)


def test_kinds_that_people_hand_in_are_read(retina):
    grey = np.ascontiguousarray(retina[..., 1])
    assert np.array_equal(decode_tiff(tiff(255 - grey, photometric="miniswhite"), LIMIT).pixels, grey)
    for tile in ({}, {"tile": (64, 48)}, {"rowsperstrip": 40}):
        again = decode_tiff(tiff(retina, photometric="rgb", compression="jpeg", **tile), LIMIT).pixels
        assert np.abs(again.astype(int) - retina).mean() < 6
    palette = Image.fromarray(retina).quantize(200)
    bits = Image.fromarray(grey > 90)
    for picture, expected in ((palette, np.asarray(palette.convert("RGB"))), (bits, (grey > 90) * np.uint8(255))):
        for compression in ("raw", "tiff_lzw", "packbits"):
            buffer = io.BytesIO()
            picture.crop((0, 0, 101, 77)).save(buffer, "TIFF", compression=compression)
            assert np.array_equal(decode_tiff(buffer.getvalue(), LIMIT).pixels, expected[:77, :101])


def test_reduced_copies_of_a_page_do_not_count(retina):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(retina, photometric="rgb", metadata=None)
        writer.write(retina[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(255 - retina, photometric="rgb", metadata=None)
    assert np.array_equal(decode_tiff(buffer.getvalue(), LIMIT, 2).pixels, 255 - retina)
    with pytest.raises(ImageError, match="several pages"):
        decode_tiff(buffer.getvalue(), LIMIT)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(retina, photometric="rgb", metadata=None)
        writer.write(retina[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(decode_tiff(buffer.getvalue(), LIMIT).pixels, retina)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "jpeg"])
@pytest.mark.parametrize("width", [95, 97, 64])
def test_pixels_that_do_not_fit_the_stated_width_are_refused(retina, compression, width):
    data = bytearray(tiff(np.ascontiguousarray(retina[:, :96]), photometric="rgb", compression=compression))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags["ImageWidth"].valueoffset
    data[place : place + 2] = width.to_bytes(2, "little")
    with pytest.raises(ImageError, match="do not fit|pixels are missing"):
        decode_tiff(bytes(data), LIMIT)


def test_invalid_codes_behind_the_last_pixel_are_ignored():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)  # no code repeats: every code has 9 bits
    row = pixels.ravel()[:240].reshape(15, 16)
    bits = "".join(f"{code:09b}" for code in (256, *row.ravel(), 511, 511, 511))
    packed = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    data = bytearray(tiff(row, photometric="minisblack", compression="lzw", rowsperstrip=15))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        counts, offsets = page.tags["StripByteCounts"], page.tags["StripOffsets"]
    data[counts.valueoffset : counts.valueoffset + 4] = len(packed).to_bytes(4, "little")
    data[offsets.valueoffset : offsets.valueoffset + 4] = len(data).to_bytes(4, "little")
    assert np.array_equal(decode_tiff(bytes(data) + packed, LIMIT).pixels, row)


def test_a_profile_of_another_type_is_left_out_with_a_note(retina):
    data = bytearray(tiff(retina, photometric="rgb", iccprofile=b"profile" * 9))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        entry = file.pages.first.tags["InterColorProfile"].offset
    data[entry + 2] = 3  # the type of its values: SHORT
    photograph = decode_tiff(bytes(data), LIMIT)
    assert (photograph.icc, photograph.notes) == (None, ("a damaged ICC profile is left out",))
    assert np.array_equal(photograph.pixels, retina)


def test_bits_stored_in_reverse_come_back_and_compressed_ones_are_refused(retina):
    def reversed_bits(pixels, **settings):
        data = tiff(pixels, photometric="rgb", extratags=[(65000, 3, 1, 2, True)], **settings)
        # FillOrder, a tag that tifffile does not write
        return data.replace(b"\xe8\xfd\3\0\1\0\0\0", b"\x0a\1\3\0\1\0\0\0")

    data = reversed_bits(imagecodecs.bitorder_decode(retina))
    assert np.array_equal(decode_tiff(data, LIMIT).pixels, retina)
    with pytest.raises(ImageError, match="reversed bits"):
        decode_tiff(reversed_bits(retina, compression="lzw"), LIMIT)
