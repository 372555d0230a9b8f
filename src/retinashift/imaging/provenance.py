"""Provenance records: how a result was made, as one line of JSON inside its own file.

The line holds no time, so that the same photograph, checkpoint and settings give the same bytes. It holds no file name,
which can be a patient's. PNG keeps it in an iTXt chunk, TIFF and WebP in the EXIF tag ProcessingSoftware, JPEG and PPM
in a comment, and DICOM in a private element.
"""

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

KEYWORD = "retinashift"
"""First key of the line, and the keyword of the PNG chunk; its value is the version of this layout."""
LAYOUT = 1
NOTE = (
    "Super-resolved: detail finer than the pixels of the input is estimated, not observed. For research, not diagnosis."
)
MAX_LINE = 3000
"""Characters; the line must fit the header of a PPM, which readers search within 4096 bytes."""


@dataclass(frozen=True)
class Provenance:
    """The record of one result."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    scale: int | float
    checkpoint: str
    """SHA-256 of weights and chain, as `retinashift info` prints it."""
    steps: int
    seed: int | None
    """None where no noise is drawn: the result is then a function of the input."""
    input: str
    """SHA-256 of the file that was read."""
    ensemble: int = 1
    back_projections: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    """Whatever else decides the pixels, such as the page of a TIFF."""
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)
    """Of retinashift and of the libraries that compute."""
    consistency_db: float | None = None
    """PSNR of the result, reduced bicubically before any lossy compression, against the input; None: equal."""
    input_was_super_resolved: bool = False
    bicubic_share: float = 0.0
    """Share of the field of view that the self-check returned to bicubic."""
    detail_factor: float = 1.0
    """What the detail was multiplied by because of the sharpness of the input."""

    def line(self) -> str:
        """One line of ASCII, the same for equal records.

        >>> Provenance(4, "c0", 1, 0, "1f").line()[:17]
        '{"retinashift": 1'
        """
        return json.dumps({KEYWORD: LAYOUT, "note": NOTE, **asdict(self)})

    def same_work(self, other: "Provenance") -> bool:
        """Whether both come from the same input by the same checkpoint, settings, device and versions."""
        measured: dict[str, Any] = {"consistency_db": None, "bicubic_share": 0.0, "detail_factor": 1.0}
        return replace(self, **measured) == replace(other, **measured)

    def returned(self) -> str:
        """What the self-check returned to bicubic, in words; "" for nothing.

        >>> Provenance(4, "c0", 1, 0, "1f", bicubic_share=0.0042).returned()
        '0.4 % of the field returned to bicubic'
        """
        percent = 100 * self.bicubic_share
        amount = f"{percent:.1f}" if percent >= 0.1 else "less than 0.1"
        return f"{amount} % of the field returned to bicubic" if percent else ""


def find_line(data: bytes) -> str:
    """The line of the first record in a file, or "": every format holds it as plain text, gzip apart."""
    if data.startswith(b"\x1f\x8b"):
        data = zlib.decompressobj(31).decompress(data, 2 * MAX_LINE)
    start = data.find(f'{{"{KEYWORD}": '.encode())
    text = data[start : start + MAX_LINE].decode("latin-1") if start >= 0 else ""
    try:
        return text[: json.JSONDecoder().raw_decode(text)[1]]
    except (ValueError, RecursionError):
        return ""


def parse_line(text: str) -> Provenance | None:
    """The record in a line; None for any other text, a later layout's, or a record whose values are not such.

    >>> record = Provenance(4, "c0", 1, 0, "1f", consistency_db=70.5)
    >>> parse_line(record.line()) == record, parse_line("a comment")
    (True, None)
    """
    if len(text) > MAX_LINE or not text.lstrip().startswith("{"):
        return None
    try:
        values = json.loads(text)
        if values.pop(KEYWORD, None) != LAYOUT:
            return None
        values.pop("note", None)
        return _checker().validate_json(json.dumps(values), strict=True)
    except (ValueError, RecursionError):
        return None


@cache
def _checker() -> "TypeAdapter[Provenance]":
    from pydantic import TypeAdapter  # only files that are results need it

    return TypeAdapter(Provenance)


def is_account(text: str) -> bool:
    """Whether a text is a record of any layout; a result's own record replaces it."""
    return text.lstrip().startswith(f'{{"{KEYWORD}":')


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
