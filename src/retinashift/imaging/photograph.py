"""A photograph as read from a file: pixels, upright, with what the file said about colour, camera and size."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retinashift.imaging.failures import printable
from retinashift.imaging.provenance import Provenance, parse_line

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_PIXELS = 100_000_000
"""Default limit of width x height. The largest fundus cameras deliver a quarter of it."""


class ImageError(ValueError):
    """An image file that cannot be read or written; the message is one line that names it and the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@contextmanager
def naming(file: object, kind: type[ValueError] = ImageError) -> Iterator[None]:
    """Put the name of a file in front of errors of that kind."""
    try:
        yield
    except kind as error:
        raise kind(f"{file}: {error}") from None


@dataclass(frozen=True, eq=False)
class Photograph:
    """Pixels and metadata. Orientation is applied: row 0 is the top. ImageError for pixels of another type or shape."""

    pixels: np.ndarray
    """(H, W) or (H, W, C), C = 2, 3, 4; uint8 or uint16 over their full range. Of 2 or 4 channels the last is alpha."""
    format: str = "PNG"
    """Name in `formats.table`."""
    icc: bytes | None = None
    """ICC profile."""
    exif: bytes | None = None
    """EXIF of the upright picture, without Orientation and thumbnail, as a TIFF structure (no "Exif" prefix)."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    colour: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of a PNG that say how its values look: type and body of cHRM, gAMA, sRGB and cICP."""
    provenance: str = ""
    """The record of a result as a line of JSON (see `provenance`): found in the file, or to be written into it."""
    dicom: "Dataset | None" = None
    """Header of the DICOM object that the picture was read from, without its pixels."""
    frame: int = 1
    """Which of the object's frames it is."""
    notes: tuple[str, ...] = ()
    """What is wrong with the file or had to be assumed, a line each; `decode_image` logs them."""
    left_out: tuple[str, ...] = ()
    """Names of what else the file holds and no result can hold; `encode_image` logs them."""

    def __post_init__(self) -> None:
        if self.pixels.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"pixels are {self.pixels.dtype}; uint8 or uint16 is needed")
        shape = self.pixels.shape
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (2, 3, 4))) or 0 in shape:
            raise ImageError(f"pixels have shape {shape}; (H, W) or (H, W, 2 to 4) is needed, no side empty")

    @property
    def channels(self) -> int:
        """1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
        return 1 if self.pixels.ndim == 2 else self.pixels.shape[2]

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def record(self) -> Provenance | None:
        """The record that the file holds if it is a result itself."""
        return parse_line(self.provenance)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError for an empty picture or one above the limit. Called on headers, before anything is decoded."""
    if width < 1 or height < 1:
        raise ImageError(f"{width}x{height} pixels is an empty picture")
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are above the limit of {max_pixels:,} pixels")


def fill_range(stored: np.ndarray, top: int) -> np.ndarray:
    """Values from 0 to `top` spread over the full range of their type. ImageError for a value above `top`."""
    full = np.iinfo(stored.dtype).max
    if int(stored.max()) > top:
        raise ImageError(f"pixels up to {stored.max()}, and the header allows {top}")
    return stored if top == full else np.rint(stored * (full / top)).astype(stored.dtype)


def narrow(rgb: np.ndarray) -> np.ndarray:
    """uint16 colours of a palette as uint8 if they hold no more than 8 bit, either repeated or followed by zeros."""
    high, low = rgb >> 8, rgb & 255
    return high.astype(np.uint8) if np.array_equal(high, low) or not low.any() else rgb


def upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8, to (H, W) or (H, W, C); other values mean 1. Source: TIFF 6.0, tag 274."""
    down, across, swapped = _TURNS.get(orientation, (1, 1, False))
    pixels = pixels[::down, ::across]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if swapped else pixels)


_TURNS = {
    2: (1, -1, False), 3: (-1, -1, False), 4: (-1, 1, False), 5: (1, 1, True), 6: (-1, 1, True), 7: (-1, -1, True),
    8: (1, -1, True),
}  # fmt: skip
"""By orientation: the steps down and across, and whether rows and columns change places."""
