"""What a photograph is like as an input: field of view, noise, sharpness, compression; which checkpoint suits it.

The thresholds were chosen on 54 validation photographs, at their own size and reduced by four, with the camera
degradation on and off, so that few of the clean ones are advised wrongly; `benchmarks/advice.py` prints the table.
"""

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from retinashift.imaging.fundus import field_of_view

# noisier, softer, more blocked or more compressed inputs are for a checkpoint that restores
NOISE, SHARPNESS, BLOCKING, QUALITY = 1.5, 0.64, 1.6, 80
# least red over green and green over blue, and most coarse detail over brightness, of a fundus photograph
RED, GREEN, TEXTURE = 1.0, 1.12, 0.22
MOST = 1024  # pixels a side: of a larger photograph, the field is measured coarsely, and detail in the middle
_TABLE_MEAN = 57.625  # of libjpeg's luminance table at quality 50 (ITU-T T.81, table K.1)


@dataclass(frozen=True)
class Condition:
    """What was measured of a photograph, on its green channel in the field of view."""

    field: float  # share of the frame that the field of view fills, 0 to 1
    diameter: int  # larger side of the field's box, in pixels
    noise: float  # deviation of the finest diagonal detail where there is least of it, in levels of 255
    sharpness: float  # ratio of the detail in the finest octave to the detail in the next; less is softer
    blocking: float  # steps at the borders of JPEG's squares over those inside them; 1 without compression
    jpeg_quality: int | None  # of a JPEG file, 1 to 100 as libjpeg counts; None for other files
    fundus: bool  # whether colours and texture are those of a fundus photograph; grey pictures are judged by texture

    @property
    def faults(self) -> list[str]:
        """What the checkpoints for clean inputs were not trained for, in words."""
        found = {
            f"noise of {self.noise:.1f} levels": self.noise > NOISE,
            f"soft (sharpness {self.sharpness:.2f})": self.sharpness < SHARPNESS,
            f"JPEG blocks ({self.blocking:.1f})": self.blocking > BLOCKING,
            f"JPEG quality {self.jpeg_quality}": self.jpeg_quality is not None and self.jpeg_quality < QUALITY,
        }
        return [what for what, there in found.items() if there]

    @property
    def advised(self) -> Literal["x4", "x4_restore"]:
        """The bundled checkpoint for such an input."""
        return "x4_restore" if self.faults else "x4"

    def warning(self, restores: bool) -> str:
        """Why the input does not suit a checkpoint, which `restores` poor inputs or not; empty where it does."""
        if not self.fundus:
            return "does not look like a fundus photograph, and the checkpoint was trained on nothing else"
        if self.faults and not restores:
            return f"{', '.join(self.faults)}, and the checkpoint is for clean inputs; compare with -c x4_restore"
        if restores and not self.faults:
            return "looks clean, and the checkpoint is for poor inputs; compare with -c x4, which changes less"
        return ""


def measure_condition(pixels: np.ndarray, jpeg_quality: int | None = None) -> Condition:
    """Measure an input, (H, W) or (H, W, C), uint8 or uint16; alpha is ignored. For its file, see `quality_of_jpeg`."""
    step = -(-max(pixels.shape[:2]) // MOST)
    coarse, levels = pixels[::step, ::step], np.float32(257 if pixels.dtype == np.uint16 else 1)
    field = field_of_view(coarse[..., :3] if _coloured(pixels) else _green(coarse), erode=0)
    rows, columns = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    across = int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1
    eroded = ndimage.minimum_filter(field, 2 * max(2, across // 40) + 1, mode="constant")  # the aperture is no detail
    eroded = eroded if eroded.any() else field
    # detail is measured in the middle, on the grid of JPEG's squares
    top, left = (max(0, (side - MOST) // 2) // 8 * 8 for side in pixels.shape[:2])
    green = _green(pixels[top : top + MOST, left : left + MOST]).astype(np.float32) / levels
    inner = eroded[(top + np.arange(green.shape[0])) // step][:, (left + np.arange(green.shape[1])) // step]
    inner = inner if inner.any() else np.ones_like(inner)
    blurred = [green, *(ndimage.gaussian_filter(green, sigma) for sigma in (0.6, 1.2))]
    fine, next_octave = (float(np.std((a - b)[inner])) for a, b in pairwise(blurred))
    return Condition(
        field=round(float(field.mean()), 3),
        diameter=across * step,
        noise=round(_noise(green, inner), 2),
        sharpness=round(fine / next_octave, 3) if next_octave else 1.0,
        blocking=round((_blocking(green, inner) + _blocking(green.T, inner.T)) / 2, 2),
        jpeg_quality=jpeg_quality,
        fundus=_looks_like_fundus(coarse, field, eroded, across, levels),
    )


def quality_of_jpeg(data: bytes) -> int | None:
    """libjpeg's quality of a JPEG file, from its luminance table; None for another file."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            table = getattr(picture, "quantization", {}).get(0)
    except Exception:  # another file, or one that the decoder refuses in better words
        return None
    if not table:
        return None
    percent = 100 * float(np.mean(table)) / _TABLE_MEAN
    return int(np.clip(round(5000 / percent if percent > 100 else (200 - percent) / 2), 1, 100))


def _coloured(pixels: np.ndarray) -> bool:
    return pixels.ndim == 3 and pixels.shape[2] > 2


def _green(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else pixels[..., 1 if _coloured(pixels) else 0]


def _looks_like_fundus(
    pixels: np.ndarray, field: np.ndarray, inner: np.ndarray, across: int, levels: np.float32
) -> bool:
    green = _green(pixels).astype(np.float32)
    broad = ndimage.gaussian_filter(green, across / 60) - ndimage.gaussian_filter(green, across / 15)
    if float(np.std(broad[inner])) > TEXTURE * max(float(levels), float(green[inner].mean())):
        return False
    if not _coloured(pixels) or not (np.ptp(pixels[..., :3], axis=2) > 0).any():
        return True
    red, middle, blue = (max(1.0, float(mean)) for mean in pixels[..., :3][field].mean(0) / levels)
    return red >= RED * middle and middle >= GREEN * blue


def _noise(green: np.ndarray, inner: np.ndarray) -> float:
    """The 20th percentile of the local deviation of second differences along both axes, 7x7 pixels each."""
    if min(green.shape) < 2:
        return 0.0
    diagonal = (green[:-1, :-1] - green[:-1, 1:] - green[1:, :-1] + green[1:, 1:]) / 2
    local = np.sqrt(np.maximum(ndimage.uniform_filter(diagonal**2, 7), 0))[inner[:-1, :-1]]
    return float(np.percentile(local, 20)) if local.size else 0.0


def _blocking(green: np.ndarray, inner: np.ndarray) -> float:
    """Mean step between columns 7 and 8, 15 and 16, ... over that between all others."""
    steps, known = np.abs(np.diff(green, axis=1)), inner[:, :-1] & inner[:, 1:]
    border = np.arange(steps.shape[1]) % 8 == 7
    at, beside = steps[:, border][known[:, border]], steps[:, ~border][known[:, ~border]]
    return float(at.mean() / max(float(beside.mean()), 1e-3)) if at.size and beside.size else 1.0
