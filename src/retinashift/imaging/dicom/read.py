"""Ophthalmic DICOM in: one frame as a photograph, with its header."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retinashift.imaging.dicom.frames import SYNTAXES, frames_of, read_frame
from retinashift.imaging.dicom.structure import Structure, read_structure
from retinashift.imaging.formats.exif import ByteText
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
_TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # in the character set that the header declares


def decode_dicom(data: bytes, max_pixels: int, frame: int | None = None) -> Photograph:
    """One frame: colour as RGB, palettes too; grey with 0 as black, whatever its stored bits, over the full range."""
    pydicom = require_pydicom()
    from pydicom.pixels.processing import apply_color_lut

    structure = read_structure(data, max_pixels)
    notes = structure.notes
    header = _decoded(structure.header, notes)  # without the pixels
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
        provenance=record_of(header), dicom=header, frame=frame, notes=tuple(notes),
    )  # fmt: skip


def require_pydicom() -> Any:
    """The module; ImageError that names the extra to install where it is missing."""
    try:
        import pydicom
    except ImportError:
        raise ImageError("DICOM needs pydicom: pip install 'retinashift[dicom]'") from None
    return pydicom


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
    if structure.syntax not in SYNTAXES:
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
