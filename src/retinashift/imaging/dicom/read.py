"""Ophthalmic DICOM in: one frame as a photograph. pydicom reads the header, imagecodecs the compressed frames."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from retinashift.imaging.dicom.geometry import pixel_spacing
from retinashift.imaging.dicom.structure import check_structure
from retinashift.imaging.formats.jpeg_stream import check_whole, codestream, frame_claims
from retinashift.imaging.formats.jpegls import decode_jpegls
from retinashift.imaging.photograph import ImageError, Photograph, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "Ophthalmic Photography 8 Bit",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "Ophthalmic Photography 16 Bit",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}
_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_RLE = "1.2.840.10008.1.2.5"
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
LOSSY_SYNTAXES = {
    _BASELINE: "ISO_10918_1", _EXTENDED: "ISO_10918_1", _JPEG_LS[1]: "ISO_14495_1", _JPEG_2000[1]: "ISO_15444_1",
}  # fmt: skip
"""Transfer syntaxes that may have lost detail, and the method's name in DICOM."""
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
PRIVATE_GROUP, PRIVATE_CREATOR = 0x0099, "RETINASHIFT"
_MM = 25.4  # to the inch


def decode_dicom(data: bytes, max_pixels: int, frame: int | None = None) -> Photograph:
    """One frame: colour as RGB, palettes too; grey with 0 as black, whatever its stored bits, over the full range.

    Args:
        data: a DICOM file with preamble.
        max_pixels: limit of rows x columns.
        frame: from 1; None allows a file of one frame only.

    Raises:
        ImageError: pydicom missing, above the limit, a deflate bomb, deep nesting, several frames and none chosen, an
            object or a coding that is not read, missing or truncated pixels; pydicom's own errors for damaged files.
    """
    syntax = check_structure(data, inflated_bytes(max_pixels))
    pydicom = require_pydicom()
    dataset = pydicom.dcmread(io.BytesIO(data))
    frame = _check_header(dataset, syntax, max_pixels, frame)
    stored = _read_frame(dataset, syntax, frame - 1)
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = _apply_palette(stored, dataset)
    elif kind in _GREYS:
        pixels = _to_full_range(stored, dataset.BitsStored)
        pixels = ~pixels if kind == "MONOCHROME1" else pixels
    else:
        pixels = _to_full_range(stored, dataset.BitsStored)
    icc = dataset.get("ICCProfile")
    header = _without_pixels(dataset)
    return Photograph(
        np.ascontiguousarray(pixels), "DICOM", bytes(icc) if icc else None, dpi=_dpi(header, frame), dicom=header,
        frame=frame, found=account_of(header),
    )  # fmt: skip


def account_of(dataset: Dataset) -> str:
    """The text of our private element, or ""."""
    try:
        return str(dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[1].value)
    except KeyError:
        return ""


def inflated_bytes(max_pixels: int) -> int:
    """That a deflated object may have: 8 bytes a pixel, and its header."""
    return 8 * max_pixels + 2**26


def require_pydicom() -> Any:
    """The module, or one line that tells how to get it."""
    try:
        import pydicom
    except ImportError:
        raise ImageError("DICOM needs pydicom: pip install 'retinashift[dicom]'") from None
    return pydicom


def _check_header(dataset: Dataset, syntax: str, max_pixels: int, frame: int | None) -> int:
    """The frame to read, once everything that the header says is known to be allowed."""
    kind = str(dataset.get("SOPClassUID", ""))
    if kind not in SOP_CLASSES:
        from pydicom.uid import UID

        raise ImageError(f"DICOM object {UID(kind).name or 'without SOP class'}; {_listed()} are read")
    if syntax not in (*_PLAIN, _BASELINE, _EXTENDED, *_LOSSLESS_JPEG, *_JPEG_LS, *_JPEG_2000, _RLE):
        raise ImageError(f"DICOM in transfer syntax {syntax}; plain, RLE, JPEG, JPEG-LS and JPEG 2000 are read")
    for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        if dataset.get(name) is None:
            raise ImageError(f"DICOM without {name}")
    check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    photometric, samples = str(dataset.PhotometricInterpretation), dataset.SamplesPerPixel
    if (photometric, samples) not in [*((c, 3) for c in _COLOURS), *((g, 1) for g in _GREYS), ("PALETTE COLOR", 1)]:
        raise ImageError(f"DICOM in {photometric} with {samples} samples a pixel is not read")
    allocated, bits = dataset.BitsAllocated, dataset.BitsStored
    if allocated not in (8, 16) or not 1 <= bits <= allocated or dataset.get("PixelRepresentation", 0) != 0:
        raise ImageError(f"DICOM with {bits} of {allocated} bits, or signed; unsigned 8 and 16 bit are read")
    if dataset.get("HighBit", bits - 1) != bits - 1:
        raise ImageError("DICOM whose high bit is not the highest of the stored ones")
    if "PixelData" not in dataset:
        raise ImageError("DICOM without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frame is None and frames != 1:
        raise ImageError(f"DICOM with {frames} frames; choose one with --page, the first is 1")
    frame = 1 if frame is None else frame
    if not 1 <= frame <= frames:
        raise ImageError(f"DICOM without a frame {frame}")
    return frame


def _listed() -> str:
    return "Ophthalmic Photography, VL Photographic and Secondary Capture"


def _read_frame(dataset: Dataset, syntax: str, index: int) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or uint16, colour as RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    shape = (dataset.Rows, dataset.Columns, *((3,) if dataset.SamplesPerPixel == 3 else ()))
    if syntax in _PLAIN or syntax == _RLE:
        pixels = pixel_array(dataset, index=index)  # YBR becomes RGB
    else:
        coded = get_frame(dataset.PixelData, index, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        claims = frame_claims(coded)
        if claims is None:
            raise ImageError("DICOM whose coded frame has no header")
        if claims[:2] != (dataset.Columns, dataset.Rows):
            raise ImageError(f"DICOM whose coded frame is not {dataset.Columns}x{dataset.Rows} pixels")
        if claims[2] != dataset.SamplesPerPixel:
            raise ImageError(f"DICOM whose coded frame has {claims[2]} components, not {dataset.SamplesPerPixel}")
        pixels = _decode_frame(coded, syntax, str(dataset.PhotometricInterpretation), claims[0] * claims[1])
        if pixels.ndim == 3 and pixels.shape[2] != 3:
            pixels = np.moveaxis(pixels, 0, -1)  # JPEG-LS that is not interleaved
    if pixels.shape != shape or pixels.dtype.itemsize * 8 > dataset.BitsAllocated or pixels.dtype.kind != "u":
        raise ImageError(f"DICOM whose frame is {pixels.shape} {pixels.dtype} and not as its header says")
    return pixels.astype(np.uint8 if dataset.BitsAllocated == 8 else np.uint16)


def _decode_frame(coded: bytes, syntax: str, photometric: str, size: int) -> np.ndarray:
    if syntax in (_BASELINE, _EXTENDED):
        marked = b"JFIF" in coded[:64] or b"Adobe" in coded[:1024]  # then the file itself tells its colours
        space = "RGB" if photometric == "RGB" and not marked else None
        return _decode_jpeg(coded, lambda stream: imagecodecs.jpeg8_decode(stream, colorspace=space))
    if syntax in _LOSSLESS_JPEG:
        pixels = _decode_jpeg(coded, imagecodecs.jpegsof3_decode)
    elif syntax in _JPEG_LS:
        pixels = decode_jpegls(coded, size)
    else:
        # the very codestream that was looked at, for another could hide in a box; it undoes its own colour transforms
        pixels = imagecodecs.jpeg2k_decode(codestream(coded), numthreads=1)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        from pydicom.pixels.processing import convert_color_space

        return convert_color_space(pixels, "YBR_FULL", "RGB")
    return pixels


def _decode_jpeg(coded: bytes, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    if not coded.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageError("DICOM whose coded frame is truncated: it has no end")
    pixels = decode(coded)
    check_whole(coded, pixels, decode)
    return pixels


def _apply_palette(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """RGB. Entries of 16 bit that hold 8 bit only become 8 bit; others stay 16."""
    from pydicom.pixels.processing import apply_color_lut

    rgb = apply_color_lut(stored, dataset)
    if rgb.dtype == np.uint16 and dataset.BitsAllocated == 8:
        high, low = rgb >> 8, rgb & 255
        if np.array_equal(high, low) or not low.any():
            return high.astype(np.uint8)
    return rgb


def _to_full_range(stored: np.ndarray, bits: int) -> np.ndarray:
    """0..2**bits - 1 onto the full range of the type; every value keeps its own place."""
    top, full = 2**bits - 1, np.iinfo(stored.dtype).max
    if int(stored.max()) > top:
        raise ImageError(f"DICOM with pixels above the {bits} bits that are stored")
    return stored if top == full else np.rint(stored * (full / top)).astype(stored.dtype)


def _without_pixels(dataset: Dataset) -> Dataset:
    from pydicom import Dataset

    del dataset.PixelData
    header = Dataset()
    for element in dataset:  # decoded here, so that damage shows while reading and not while writing
        header.add(element)
    header.file_meta = dataset.file_meta
    return header


def _dpi(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """From the spacing on the retina."""
    millimetres = pixel_spacing(dataset, frame)
    return None if millimetres is None else (_MM / millimetres[1], _MM / millimetres[0])
