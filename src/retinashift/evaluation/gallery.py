"""Crops for the report: each result beside the photograph, its errors, and the vessels it lost or invented."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from retinashift.evaluation.scores import Result, Subject
from retinashift.evaluation.spectrum import reference_power, result_power
from retinashift.evaluation.vessels import reference_vessels, result_vessels
from retinashift.imaging.degradation.bicubic import enlarge

CROP = 120
"""Side of a crop in pixels of the photograph."""
BRIGHTEST_ERROR = 24
"""Grey levels that the error map shows as its brightest colour."""
AGREED, MISSED, INVENTED = (228, 228, 228), (64, 132, 255), (255, 138, 30)
"""Colours of vessels found in both, in the photograph alone, in the result alone."""
_VESSELS = np.array([(18, 18, 18), INVENTED, MISSED, AGREED], np.uint8)
_STOPS = np.array([(0, 0, 8), (60, 15, 110), (170, 40, 110), (245, 110, 60), (255, 240, 190)], np.float64)


@dataclass(frozen=True)
class Panel:
    """What a method made of a crop: three pictures, (CROP, CROP, 3) uint8."""

    picture: np.ndarray
    error: np.ndarray
    vessels: np.ndarray | None
    psnr: float | None
    """Of the whole field of view, dB."""


@dataclass
class Exhibit:
    """One photograph's crop."""

    image: str
    window: tuple[slice, slice]
    """Rows and columns."""
    lr: np.ndarray
    """Enlarged by repetition, (CROP, CROP, 3) uint8."""
    reference: Panel
    panels: dict[str, Panel] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """PSNR of the last method less PSNR of bicubic, or of the first method, in the field of view, in dB."""
        psnr = {name: panel.psnr for name, panel in self.panels.items() if panel.psnr is not None}
        if not psnr:
            return float("inf")
        plain = psnr.get("bicubic", next(iter(psnr.values())))
        return list(psnr.values())[-1] - plain


@dataclass
class Gallery:
    """Collects exhibits of some images and of the worst, and the power spectra of all. Give `add` to `evaluate`.

    The crop lies where plain bicubic errs most inside the field: not chosen by eye, and the same for every method.
    """

    shown: frozenset[str]
    """Names of the images that are shown whatever their scores."""
    worst: int = 5
    """Number of photographs shown, those with the least `Exhibit.gain`."""
    exhibits: dict[str, Exhibit] = field(default_factory=dict)
    power: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """By method: the power relative to the photograph's, (BANDS,), one for each photograph."""

    def add(self, result: Result) -> None:
        """Keep what the page shows of a result: its power where "spectrum" was measured, vessels likewise."""
        subject, with_vessels = result.subject, "vessel_dice" in result.scores
        power, reference = result.derive(result_power), subject.derive(reference_power)
        if power is not None and reference is not None and "sharpness" in result.scores:
            self.power.setdefault(result.method, []).append(power / np.maximum(reference, 1e-9))
        exhibit = self.exhibits.get(subject.image)
        if exhibit is None:
            kept = self.shown | {exhibit.image for exhibit in self.worst_exhibits()}
            self.exhibits = {image: exhibit for image, exhibit in self.exhibits.items() if image in kept}
            exhibit = self.exhibits[subject.image] = _exhibit(subject, with_vessels)
        vessels = result.derive(result_vessels).vessels if with_vessels else None
        score = result.scores.get("psnr_rgb_fov")
        exhibit.panels[result.method] = _panel(subject, exhibit.window, result.sr, vessels, score)

    def worst_exhibits(self) -> list[Exhibit]:
        """The `worst` exhibits, least gain first."""
        return sorted(self.exhibits.values(), key=lambda exhibit: exhibit.gain)[: self.worst]


def error_colours(error: np.ndarray) -> np.ndarray:
    """(H, W) grey levels -> (H, W, 3) uint8, black for none to pale yellow from `BRIGHTEST_ERROR` on."""
    at = np.clip(error / BRIGHTEST_ERROR, 0, 1) * (len(_STOPS) - 1)
    channels = [np.interp(at, np.arange(len(_STOPS)), _STOPS[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _exhibit(subject: Subject, with_vessels: bool) -> Exhibit:
    bicubic = enlarge(subject.lr, subject.scale, "bicubic")
    error = np.abs(_rgb(bicubic).astype(np.float32) - _rgb(subject.hr)).mean(2) * subject.field
    side = min(CROP, *error.shape)
    around = ndimage.uniform_filter(error, side, mode="constant")
    inside = ndimage.uniform_filter(subject.field.astype(np.float32), side, mode="constant")
    around *= inside > 0.98 * inside.max()  # the edge of the aperture is sharper than any vessel
    middle = np.unravel_index(around.argmax(), around.shape)
    row, column = (min(max(0, int(at) - side // 2), end - side) for at, end in zip(middle, error.shape, strict=True))
    window = slice(row, row + side), slice(column, column + side)
    vessels = subject.derive(reference_vessels).vessels if with_vessels else None
    lr = _rgb(enlarge(subject.lr, subject.scale, "nearest")[window])
    return Exhibit(subject.image, window, lr, _panel(subject, window, subject.hr, vessels, None))


def _panel(
    subject: Subject, window: tuple[slice, slice], pixels: np.ndarray, vessels: np.ndarray | None, psnr: float | None
) -> Panel:
    picture, hr = _rgb(pixels[window]), _rgb(subject.hr[window])
    error = error_colours(np.abs(picture.astype(int) - hr).mean(2))
    if vessels is None:
        return Panel(picture, error, None, psnr)
    truth = subject.derive(reference_vessels).vessels[window]
    return Panel(picture, error, _VESSELS[2 * truth.astype(int) + vessels[window]], psnr)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
