"""Ophthalmic DICOM in: one frame as a photograph, with its header. imagecodecs decodes pixels that are coded."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, MutableSequence
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from retinashift.imaging.dicom.structure import BIG_ENDIAN, DEFLATED, IMPLICIT, Structure, read_structure
from retinashift.imaging.formats.boxed import decode_apart
from retinashift.imaging.formats.exif import ByteText
from retinashift.imaging.formats.jpeg import check_whole, codestream, frame_claims
from retinashift.imaging.photograph import ImageError, Photograph, check_size, fill_range, narrow

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.tag import BaseTag

_SOP_CLASSES = {f"1.2.840.10008.5.1.4.1.1.{end}" for end in (
    "77.1.5.1", "77.1.5.2",  # Ophthalmic Photography 8 Bit, 16 Bit
    "77.1.5.5", "77.1.5.6",  # Wide Field Ophthalmic Photography, Stereographic Projection and 3D Coordinates
    "77.1.4", "7", "7.2", "7.3", "7.4",  # VL Photographic; Secondary Capture, one frame, grey byte and word, colour
)}  # fmt: skip
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_GROUP, _CREATOR = 0x0099, "RETINASHIFT"
_SAMPLES = {
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"), 3),
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
}
"""Of a pixel, by photometric interpretation."""
_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))  # 201 to 203: high throughput
_RLE = "1.2.840.10008.1.2.5"
_PLAIN = (IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)
_SYNTAXES = (*_PLAIN, _BASELINE, _EXTENDED, *_LOSSLESS_JPEG, *_JPEG_LS, *_JPEG_2000, _RLE)
LOSSY = {
    _BASELINE: "ISO_10918_1", _EXTENDED: "ISO_10918_1", _JPEG_LS[1]: "ISO_14495_1", _JPEG_2000[1]: "ISO_15444_1",
    _JPEG_2000[4]: "ISO_15444_15",
}  # fmt: skip
"""Transfer syntaxes that may have lost detail, and the method's name in DICOM."""
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # of JPEG, JPEG-LS and JPEG 2000 streams
_SECONDS, _PIXELS_A_SECOND = 0.5, 2 * 10**6  # an intact stream needs a fifth
_TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # in the character set that the header declares


def decode_dicom(data: bytes, max_pixels: int, frame: int | None = None) -> Photograph:
    """One frame: colour as RGB, palettes too; grey with 0 as black, whatever its stored bits, over the full range."""
    pydicom = require_pydicom()
    from pydicom.pixels.processing import apply_color_lut

    structure = read_structure(data, max_pixels)
    header = _decoded(structure.header, structure.notes)  # without the pixels
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(structure.syntax)
    frame = _check_header(header, structure, max_pixels, frame)
    pixels, kind = read_frame(structure, header, frame - 1), header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        if pixels.dtype == np.uint16 and header.BitsAllocated == 8:
            pixels = narrow(pixels)  # entries of 16 bit that hold 8 bit only; others stay 16
    else:
        pixels = fill_range(pixels, 2 ** int(header.BitsStored) - 1)
        pixels = ~pixels if kind == "MONOCHROME1" else pixels
    icc, spacing = header.get("ICCProfile"), pixel_spacing(header, frame)  # mm on the retina, down and across
    dpi = (25.4 / spacing[1], 25.4 / spacing[0]) if spacing else None
    return Photograph(
        np.ascontiguousarray(pixels), "DICOM", bytes(icc) if icc else None, dpi=dpi,
        provenance=record_of(header), dicom=header, frame=frame, notes=tuple(structure.notes),
    )  # fmt: skip


def require_pydicom() -> Any:
    """The module; ImageError that names the extra to install where it is missing."""
    try:
        import pydicom
    except ImportError:
        raise ImageError("DICOM needs pydicom: pip install 'retinashift[dicom]'") from None
    return pydicom


def frames_of(header: Dataset) -> int:
    """How many frames the header says that there are."""
    return int(header.get("NumberOfFrames") or 1)


def pixel_spacing(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Millimetres down and across a pixel of that frame, from 1; None where the header has none that is possible."""
    shared, each = (dataset.get(name) or [] for name in GROUPS)
    for place in (dataset, *shared[:1], *each[frame - 1 : frame]):
        for measures in (place, *(place.get("PixelMeasuresSequence") or [])):
            values = numbers(measures.get("PixelSpacing"))
            if len(values) == 2 and all(1e-6 < value < 1e3 for value in values):
                return values[0], values[1]
    return None


def numbers(value: Any) -> list[float]:
    """The numbers of an element that may have none, one or several; ValueError for text that is none."""
    if value is None or value == "":
        return []
    return [float(each) for each in (value if isinstance(value, MutableSequence) else [value])]


def decimal(value: float) -> str:
    """At most 16 characters, as the value representation DS allows."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def record_of(header: Dataset) -> str:
    """The text of our private element, or ""."""
    try:
        return str(header.private_block(_GROUP, _CREATOR)[1].value)
    except KeyError:
        return ""


def put_record(dataset: Dataset, record: str) -> None:
    """Keep a record, if there is one, in our private element."""
    if record:
        dataset.private_block(_GROUP, _CREATOR, create=True).add_new(1, "UT", record)


def _decoded(raw: Dataset, notes: list[str]) -> Dataset:
    """A copy of a data set or item with its elements decoded; one that is damaged is left out, with a note."""
    from pydicom import Dataset
    from pydicom.datadict import keyword_for_tag

    result = Dataset()
    for tag in sorted(raw.keys()):
        if tag.group in (0, 0xFFFE):
            continue  # what stands here are zeros, a message's elements, or delimiters
        try:
            result.add(_element(raw, tag, notes))
        except Exception as error:  # pydicom raises whatever a damaged value leads it to
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            notes.append(f"DICOM attribute {keyword_for_tag(tag) or tag} is left out: {reason}")
    return result


def _element(raw: Dataset, tag: BaseTag, notes: list[str]) -> DataElement:
    """One element, decoded. Text that is not ASCII stays as its bytes: in another character set they would change."""
    from pydicom import DataElement
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    stored, known = raw.get_item(tag), dictionary_VR(tag) if dictionary_has_tag(tag) else ""
    kind = known if stored.VR in (None, "UN") else stored.VR
    if known and (kind == "SQ") != (known == "SQ"):
        raise ValueError(f"it is {kind} and should be {known}")
    if kind in _TEXT and isinstance(stored.value, bytes) and not stored.value.isascii():
        text = stored.value.rstrip(b"\0 ")
        value = ByteText(text, "latin-1") if kind == "PN" else text  # pydicom takes no bytes for a name
        return DataElement(tag, kind, value, already_converted=True)
    element = raw[tag]
    if element.VR == "SQ":
        return DataElement(tag, "SQ", [_decoded(item, notes) for item in element.value or []])
    if element.VR in ("DS", "IS"):
        numbers(element.value)  # pydicom lets text pass
    return element


def _check_header(header: Dataset, structure: Structure, max_pixels: int, frame: int | None) -> int:
    """The frame to read, once all that the header says is known to be allowed."""
    kind = str(header.get("SOPClassUID", ""))
    if kind not in _SOP_CLASSES:
        from pydicom.uid import UID

        allowed = "(Wide Field) Ophthalmic Photography, VL Photographic and Secondary Capture"
        raise ImageError(f"DICOM object {UID(kind).name or 'without SOP class'}; {allowed} are read")
    if structure.syntax not in _SYNTAXES:
        raise ImageError(f"DICOM in transfer syntax {structure.syntax}; plain, RLE, JPEG, JPEG-LS, JPEG 2000 are read")
    for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PhotometricInterpretation"):
        if header.get(name) in (None, ""):
            raise ImageError(f"DICOM without {name}")
    check_size(int(header.Columns), int(header.Rows), max_pixels)
    photometric, samples = str(header.PhotometricInterpretation), header.SamplesPerPixel
    allocated, bits, frames = header.BitsAllocated, header.BitsStored, frames_of(header)
    number = 1 if frame is None else frame
    faults = {
        f"DICOM in {photometric} with {samples} samples a pixel is not read": samples != _SAMPLES.get(photometric),
        "DICOM with signed pixels; unsigned 8 and 16 bit are read": header.get("PixelRepresentation", 0) != 0,
        f"DICOM with {bits} of {allocated} bits; unsigned 8 and 16 bit are read":
            allocated not in (8, 16) or not 1 <= bits <= allocated,
        f"DICOM whose high bit is {header.get('HighBit')}; {bits - 1} is needed for {bits} stored bits":
            header.get("HighBit", bits - 1) != bits - 1,
        "DICOM without pixels": not structure.pixel_vr,
        f"DICOM with {frames} frames; choose one with --page, the first is 1": frame is None and frames != 1,
        f"DICOM without a frame {number}": not 1 <= number <= frames,
    }  # fmt: skip
    if fault := next((fault for fault, found in faults.items() if found), None):
        raise ImageError(fault)
    return number


def read_frame(structure: Structure, header: Dataset, index: int) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or uint16, colour as RGB. ImageError where pixels do not fit the header."""
    if structure.syntax in _PLAIN:
        pixels = _native(structure, header, index)
    else:
        coded = _frames(structure.fragments, frames_of(header), structure.syntax == _RLE)[index]
        pixels = _run_lengths(coded, header) if structure.syntax == _RLE else _decode(coded, structure.syntax, header)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        pixels = np.moveaxis(pixels, 0, -1)  # JPEG-LS that is not interleaved
    samples, itemsize = header.SamplesPerPixel, header.BitsAllocated // 8
    shape = (header.Rows, header.Columns, samples)[: 2 if samples == 1 else 3]
    if pixels.shape != shape or pixels.itemsize > itemsize or pixels.dtype.kind != "u":
        raise ImageError(f"DICOM whose frame is {pixels.shape} {pixels.dtype} and not as its header says")
    return np.ascontiguousarray(pixels, np.uint8 if itemsize == 1 else np.uint16)


def _native(structure: Structure, header: Dataset, index: int) -> np.ndarray:
    photometric, frames, bits = header.PhotometricInterpretation, frames_of(header), header.BitsAllocated
    samples = 2 if photometric == "YBR_FULL_422" else header.SamplesPerPixel  # two lumas share their chroma
    expected, found = header.Rows * header.Columns * samples * (bits // 8) * frames, len(structure.pixels)
    if found not in (expected, expected + expected % 2):
        whole = f"{frames} frame(s) of {header.Columns}x{header.Rows}"
        raise ImageError(f"DICOM whose pixels have {found:,} bytes; {whole} have {expected:,}")
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {
        "rows": header.Rows, "columns": header.Columns, "samples_per_pixel": header.SamplesPerPixel,
        "bits_allocated": bits, "bits_stored": bits,  # all: the decoder would mask what lies above the stored ones
        "photometric_interpretation": photometric, "number_of_frames": frames, "pixel_representation": 0,
        "planar_configuration": int(header.get("PlanarConfiguration") == 1), "pixel_keyword": "PixelData",
        "be_swap_ow": structure.syntax == BIG_ENDIAN and structure.pixel_vr == b"OW",
    }  # fmt: skip
    return get_decoder(structure.syntax).as_array(structure.pixels, index=index, **options)[0]


def _frames(fragments: list[bytes], frames: int, one_fragment_each: bool) -> list[bytes]:
    """The coded frames. Source: PS3.5, A.4: a frame is one fragment or several; the first item may hold offsets."""
    table, parts = fragments[0] if fragments else b"", fragments[1:]
    one_fragment_each = one_fragment_each or len(parts) == frames
    offsets = {int.from_bytes(table[i : i + 4], "little") for i in range(0, len(table), 4)}
    groups, place = list[list[bytes]](), 0
    for part in parts:
        begins = place in offsets if table else part.startswith(_STARTS)
        if one_fragment_each or begins or not groups:
            groups.append([])
        groups[-1].append(part)
        place += 8 + len(part)
    found = max(len(groups), sum(part.startswith(_STARTS) for part in parts))
    if found != frames:
        raise ImageError(f"DICOM that holds {found} coded frame(s), and its header says {frames}")
    return [b"".join(group) for group in groups]


def _decode(coded: bytes, syntax: str, header: Dataset) -> np.ndarray:
    photometric, claims = header.PhotometricInterpretation, frame_claims(coded)
    if claims is None:
        raise ImageError("DICOM whose coded frame has no header")
    if claims[:2] != (header.Columns, header.Rows):
        raise ImageError(f"DICOM whose coded frame is not {header.Columns}x{header.Rows} pixels")
    if claims[2] != header.SamplesPerPixel:
        raise ImageError(f"DICOM whose coded frame has {claims[2]} components, not {header.SamplesPerPixel}")
    if syntax in (_BASELINE, _EXTENDED):
        # then the stream states its own colours; an Adobe segment that is too short states nothing
        marked = b"JFIF" in coded[:64] or b"\xff\xee\0\x0eAdobe" in coded[:1024]
        space = "RGB" if photometric == "RGB" and not marked else None
        return _decode_jpeg(coded, lambda stream: imagecodecs.jpeg8_decode(stream, colorspace=space))
    if syntax in _LOSSLESS_JPEG:
        return _to_rgb(_decode_jpeg(coded, decode_lossless), photometric)
    if syntax in _JPEG_LS:
        return _to_rgb(decode_jpegls(coded, claims[0] * claims[1]), photometric)
    # the very codestream that was looked at, for another could hide in a box; it undoes its own colour transforms
    stream = codestream(coded)
    pixels = imagecodecs.jpeg2k_decode(stream, numthreads=1)
    return pixels if _has_colour_transform(stream) else _to_rgb(pixels, photometric)


def decode_lossless(coded: bytes) -> np.ndarray:
    """The values of a lossless JPEG stream (process 14)."""
    return imagecodecs.jpegsof3_decode(bytearray(coded))  # a copy: imagecodecs before 2026 writes into its input


def _has_colour_transform(stream: bytes) -> bool:
    """Whether a JPEG 2000 codestream transforms its colours. Source: ISO/IEC 15444-1, A.6.1."""
    (length,) = struct.unpack_from(">H", stream, 4)  # of the first segment, SIZ
    place = stream.find(b"\xff\x52", 4 + length)
    return place >= 0 and stream[place + 8 : place + 9] == b"\1"


def _decode_jpeg(coded: bytes, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """`coded` may be padded to an even length, with any byte, or with zeros."""
    end = coded.rfind(b"\xff\xd9") + 2
    if end < 2 or len(coded[end:].rstrip(b"\0")) > 1:
        raise ImageError("DICOM whose coded frame is truncated: it has no end")
    pixels = decode(coded[:end])
    check_whole(coded[:end], pixels, decode)
    return pixels


def _run_lengths(coded: bytes, header: Dataset) -> np.ndarray:
    """Segments of PackBits, each a byte of each sample. Source: PS3.5, G.3 and G.5."""
    count, *offsets = struct.unpack_from("<16L", coded)
    size, itemsize = header.Rows * header.Columns, header.BitsAllocated // 8
    if count != header.SamplesPerPixel * itemsize:
        raise ImageError(f"DICOM whose run lengths have {count} segments, not as its header says")
    planes = []
    for start, end in itertools.pairwise([*offsets[:count], len(coded)]):
        plane = bytes(imagecodecs.packbits_decode(coded[start:end], out=size + 1))
        if len(plane) not in (size, size + 1):
            raise ImageError("DICOM whose run lengths do not fit its stated size")
        planes.append(np.frombuffer(plane, np.uint8, size))
    whole = np.stack(planes, axis=-1).reshape(header.Rows, header.Columns, -1, itemsize)
    pixels = np.ascontiguousarray(whole).view(f">u{itemsize}")[..., 0]  # (H, W, C); the high byte comes first
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    return _to_rgb(pixels if pixels.shape[2] > 1 else pixels[..., 0], header.PhotometricInterpretation)


def _to_rgb(pixels: np.ndarray, photometric: str) -> np.ndarray:
    if photometric not in ("YBR_FULL", "YBR_FULL_422"):
        return pixels
    from pydicom.pixels.processing import convert_color_space

    return convert_color_space(pixels, "YBR_FULL", "RGB")


def decode_jpegls(coded: bytes, pixels: int) -> np.ndarray:
    """(H, W) or (H, W, C), or (C, H, W) if the stream is not interleaved; uint8 or uint16.

    Decoded in a process of its own: on some damaged streams the decoder (CharLS 2.4) counts for minutes. From `pixels`,
    width x height, follows the processor time allowed.
    """
    code, seconds = "found = {'pixels': imagecodecs.jpegls_decode(data)}", _SECONDS + pixels / _PIXELS_A_SECOND
    return decode_apart("JPEG-LS", "imagecodecs", code, coded, seconds)["pixels"]
