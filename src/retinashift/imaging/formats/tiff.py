"""TIFF: read through tifffile, written with Pillow's directories."""

import io
import itertools
import re
import struct
import zlib

import imagecodecs
import numpy as np
import tifffile
from PIL import TiffTags
from PIL.ExifTags import Base
from tifffile import EXTRASAMPLE

from retinashift.imaging.formats.exif import exif_dpi, load_exif, make_directory, upright_photograph
from retinashift.imaging.formats.jpeg import check_whole, frame_claims
from retinashift.imaging.photograph import ImageError, Photograph, check_size, narrow

_COMPRESSIONS = {
    1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "Zstandard",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PHOTOMETRICS: dict[int, tuple[str, int, tuple[int, ...]]] = {
    _WHITE_IS_ZERO: ("grey", 1, (1, 8, 16)), _BLACK_IS_ZERO: ("grey", 1, (1, 8, 16)), _RGB: ("RGB", 3, (8, 16)),
    _PALETTE: ("palette", 1, (1, 4, 8)), _YCBCR: ("YCbCr in JPEG", 3, (8, 16)),
}  # fmt: skip
"""Name, number of colours, and the bits that are read."""
_LZW = 5
_MAX_PAGE = 10_000  # a chain of directories is followed no further
_NOT_KEPT = {33723: "IPTC", 34377: "Photoshop's settings"}
_INCH_IN = {
    "nm": 2.54e7, "um": 25400, "\\u00b5m": 25400, "\u00b5m": 25400, "\u00c2\u00b5m": 25400, "micron": 25400,
    "microns": 25400, "micrometer": 25400, "mm": 25.4, "cm": 2.54, "inch": 1.0, "inches": 1.0,
}  # fmt: skip
"""Units as ImageJ writes them; the micro sign comes escaped, or as one or two bytes."""


def decode_tiff(data: bytes, max_pixels: int, number: int | None = None) -> Photograph:
    """One page: grey, RGB or palette, 8 or 16 bit or bilevel, strips or tiles, either byte order, BigTIFF too.

    Bilevel becomes 0 and 255. A further channel that the file does not call alpha is left out with a note. Reduced
    copies of a page are not counted; a file of one page needs no number.
    """
    notes: list[str] = []
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _choose_page(file, number)
        _check_page(page, len(data), max_pixels)
        stored = _read_pixels(page, data)  # (H, W) or (H, W, C)
        if page.photometric == _WHITE_IS_ZERO:
            stored = ~stored
        elif page.photometric == _PALETTE:
            if page.colormap is None:
                raise ImageError("TIFF with a palette and no colours for it")
            stored = narrow(page.colormap.T[stored])
        stored = _without_unclear_channel(stored, page, notes)
        icc = page.iccprofile if isinstance(page.iccprofile, bytes) else None
        if icc is not page.iccprofile:  # its tag is of another type
            notes.append("a damaged ICC profile is left out")
        exif = load_exif(data, notes, page.offset)
        left_out = [name for tag, name in _NOT_KEPT.items() if tag in page.tags]
        xmp = bytes(page.tags[700].value) if 700 in page.tags else None
        kinds = {"ImageJ": page.is_imagej, "OME": page.is_ome, "tifffile": page.is_shaped}
        programs = [name for name, described in kinds.items() if described]
    dpi = exif_dpi(exif)
    if programs and (text := exif.pop(Base.ImageDescription, "")):
        left_out.append(f"the description in which {programs[0]} states sizes")  # they are the small picture's
        unit = re.search(r"^unit=(.*?)\s*$", text, re.MULTILINE)  # of the resolution tags, as ImageJ writes them
        dpi = dpi or (exif_dpi(exif, {1: _INCH_IN.get(unit[1].lower())}) if unit else None)
    return upright_photograph(stored, "TIFF", exif, xmp=xmp, dpi=dpi, icc=icc, notes=notes, left_out=left_out)


def encode_tiff(photograph: Photograph) -> bytes:
    """Deflate with horizontal predictor, lossless, little-endian. Written here because tifffile writes no EXIF."""
    pixels, channels = photograph.pixels, photograph.channels
    height, width = pixels.shape[:2]
    rows = max(1, 2**20 // pixels[0].nbytes)  # of a strip of a megabyte
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    differences = (imagecodecs.delta_encode(little[top : top + rows], axis=1) for top in range(0, height, rows))
    strips = [zlib.compress(block.tobytes()) for block in differences]
    lengths = [len(strip) for strip in strips]
    if sum(lengths) > 2**32 - 2**26:  # which leaves room for the directory
        raise ImageError("TIFF holds at most 4 GiB; write PNG")
    tags = load_exif(photograph.exif) | {
        Base.ImageWidth: width, Base.ImageLength: height, Base.SamplesPerPixel: channels, Base.RowsPerStrip: rows,
        Base.BitsPerSample: (pixels.itemsize * 8,) * channels,
        Base.PhotometricInterpretation: _BLACK_IS_ZERO if channels < 3 else _RGB,
        Base.Compression: 8, Base.Predictor: 2,  # deflate, of horizontal differences
    }  # fmt: skip
    if photograph.provenance:
        tags[Base.ProcessingSoftware] = photograph.provenance
    if photograph.has_alpha:
        tags[Base.ExtraSamples] = 2  # plain alpha, not premultiplied
    directory = make_directory(tags, photograph.dpi)
    if photograph.icc:
        directory.tagtype[Base.InterColorProfile] = TiffTags.UNDEFINED
        directory[Base.InterColorProfile] = photograph.icc
    directory.tagtype[Base.StripOffsets] = directory.tagtype[Base.StripByteCounts] = TiffTags.LONG
    directory[Base.StripOffsets] = [0, *itertools.accumulate(lengths[:-1])]  # Pillow adds where the directory ends
    directory[Base.StripByteCounts] = lengths
    header = struct.pack("<2sHI", b"II", 42, 8)  # the directory follows at byte 8, the strips behind it
    return header + directory.tobytes(8) + b"".join(strips)


def _choose_page(file: tifffile.TiffFile, number: int | None) -> tifffile.TiffPage:
    """The page of that number; pages that are reduced copies of another do not count."""
    pages = enumerate(itertools.islice(file.pages, _MAX_PAGE))
    whole = (page for index, page in pages if isinstance(page, tifffile.TiffPage) and not (index and page.is_reduced))
    found = list(itertools.islice(whole, 2 if number is None else number))
    if number is None and len(found) > 1:
        raise ImageError("TIFF with several pages; choose one with --page, the first is 1")
    wanted = 1 if number is None else number
    if not found or len(found) < wanted:
        raise ImageError(f"TIFF without a page {wanted}")
    return found[-1]


def _check_page(page: tifffile.TiffPage, file_bytes: int, max_pixels: int) -> None:
    """ImageError unless the page is of a kind that is read; from its tags, before anything is decoded."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.is_tiled:
        check_size(page.tilewidth, page.tilelength, max_pixels)
    jpeg, bits, planes = page.compression == 7, page.bitspersample, page.planarconfig
    if page.photometric not in _PHOTOMETRICS or (page.photometric == _YCBCR and not jpeg):
        allowed = ", ".join(dict.fromkeys(name for name, _, _ in _PHOTOMETRICS.values()))
        raise ImageError(f"TIFF in {_name(page.photometric)}; {allowed} are read, convert it to RGB")
    if page.compression not in _COMPRESSIONS or page.predictor not in (1, 2):
        allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(f"TIFF compressed with {_name(page.compression)}; {allowed} are read")
    _, colours, depths = _PHOTOMETRICS[page.photometric]
    if page.sampleformat != 1 or bits not in depths:
        stored, allowed = _name(tifffile.SAMPLEFORMAT(page.sampleformat)), ", ".join(map(str, depths))
        raise ImageError(f"TIFF with {bits} bit {stored}; {allowed} bit UINT are read")
    if planes not in (1, 2):
        raise ImageError(f"damaged TIFF: planar configuration {_name(planes)}; 1 and 2 are allowed")
    extra = page.samplesperpixel - colours
    if page.imagedepth != 1 or extra not in (0, 1) or (extra and bits < 8):
        raise ImageError(f"TIFF with {page.samplesperpixel} samples a pixel; grey or RGB, at most one alpha, are read")
    if jpeg and (planes == 2 or bits != 8 or page.predictor != 1):
        raise ImageError("TIFF with JPEG in planes or not of 8 bit; save it as plain RGB")
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    if rows < 1 or columns < 1:
        raise ImageError("damaged TIFF: its strips or tiles are empty")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    expected = -(-page.imagelength // rows) * -(-page.imagewidth // columns)
    expected *= page.samplesperpixel if planes == 2 else 1
    if len(segments) < expected or any(not count or offset + count > file_bytes for offset, count in segments):
        raise ImageError("truncated TIFF: pixels are missing")
    if len(segments) > expected:
        raise ImageError("TIFF whose pixels do not fit its stated size: it has more strips or tiles")
    if page.fillorder == 2 and page.compression != 1:
        raise ImageError("compressed TIFF with reversed bits; save it without compression")
    if bits < 8 and page.predictor != 1:
        raise ImageError("TIFF with differenced bits; save it with 8 bit")


def _read_pixels(page: tifffile.TiffPage, data: bytes) -> np.ndarray:
    """(H, W) or (H, W, C) as stored, uint8 or uint16; bilevel grey as 0 and 255."""
    # tifffile pads or cuts what does not fit the stated size: each strip or tile is measured first
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        _, _, shape = page.decode(None, index)
        if page.compression == 7:
            _check_jpeg(page, data[offset : offset + count], index, shape[1:])
        else:
            _check_length(page, data[offset : offset + count], shape[1:])
    pixels = page.asarray(maxworkers=1)
    if pixels.ndim == 3 and page.planarconfig == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.bitspersample == 1:
        pixels = pixels * np.uint8(1 if page.photometric == _PALETTE else 255)
    return np.ascontiguousarray(pixels)


def _check_length(page: tifffile.TiffPage, packed: bytes, shape: tuple[int, ...]) -> None:
    """ImageError unless a strip or tile unpacks to (rows, columns, samples)."""
    rows, columns, samples = shape
    length = rows * -(-columns * samples * page.bitspersample // 8)
    more = rows * samples * max(1, page.bitspersample // 8)  # a column: encoders may leave less behind the last pixel
    try:
        found = len(_unpack(page.compression, packed, length + more))
    except Exception as error:  # the codecs' own, also for more bytes than that
        if page.compression != _LZW:
            raise ImageError(f"TIFF whose pixels are damaged or do not fit its stated size ({error})") from None
        found = len(_unpack(_LZW, packed, length))  # some encoders leave invalid codes behind the last pixel
    if found < length:
        raise ImageError("truncated TIFF: pixels are missing")
    if found >= length + more:
        raise ImageError("TIFF whose pixels do not fit its stated size")


def _unpack(compression: int, packed: bytes, most: int) -> bytes:
    """Up to `most` bytes, so that no segment inflates further than its page promises."""
    if compression == 1:
        return packed
    if compression in (8, 32946):
        return zlib.decompressobj().decompress(packed, most)
    decode = {5: imagecodecs.lzw_decode, 32773: imagecodecs.packbits_decode, 50000: imagecodecs.zstd_decode}
    return bytes(decode[compression](packed, out=most))


def _check_jpeg(page: tifffile.TiffPage, coded: bytes, index: int, shape: tuple[int, ...]) -> None:
    """ImageError unless a JPEG stream, whose own header may claim any size, is whole and of that shape."""
    if frame_claims(coded) != (shape[1], shape[0], shape[2]):
        raise ImageError("TIFF whose JPEG data do not fit its stated size")

    def decode(stream: bytes) -> np.ndarray:
        return np.asarray(page.decode(stream, index, jpegtables=page.jpegtables)[0])[0]

    check_whole(coded, decode(coded), decode)


def _without_unclear_channel(stored: np.ndarray, page: tifffile.TiffPage, notes: list[str]) -> np.ndarray:
    """The picture without a further channel that is not alpha. Opaque premultiplied alpha is plain alpha."""
    if EXTRASAMPLE.UNSPECIFIED in page.extrasamples:
        notes.append(f"channel {page.samplesperpixel}, whose meaning the file does not state, is left out")
        return np.ascontiguousarray(stored[..., 0] if stored.shape[2] == 2 else stored[..., :3])
    if EXTRASAMPLE.ASSOCALPHA in page.extrasamples and stored[..., -1].min() < np.iinfo(stored.dtype).max:
        raise ImageError("TIFF with premultiplied alpha; save it with plain alpha or without")
    return stored


def _name(value: object) -> str:
    return getattr(value, "name", str(value))
