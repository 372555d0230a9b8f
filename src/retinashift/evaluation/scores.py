"""All scores of one reconstruction, and what they are taken against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import fmean
from typing import Literal

import numpy as np

from retinashift.evaluation import ms_ssim, perceptual
from retinashift.evaluation.metrics import consistency, psnr_rgb, psnr_y, ssim_y
from retinashift.evaluation.spectrum import radial_power, sharpness
from retinashift.evaluation.vessels import VesselMap, area_under_curve, dice, thin_sensitivity, vessel_map
from retinashift.inference.uncertainty import Z, coverage

Metric = Literal["ms-ssim", "vessels", "spectrum", "coverage", "st-lpips", "lpips"]
"""What is measured beside PSNR, SSIM and consistency. Coverage is that of an `Estimate`.

The last two need networks, and seconds a photograph.
"""
DEFAULT_METRICS: tuple[Metric, ...] = ("ms-ssim", "vessels", "spectrum")


@dataclass(frozen=True)
class Subject:
    """One photograph of a test set and all that is derived from it once."""

    image: str
    hr: np.ndarray
    """(H, W, 3) or (H, W), uint8."""
    lr: np.ndarray
    field: np.ndarray
    """(H, W) bool."""
    scale: int
    label: np.ndarray | None = None
    """(H, W) bool, an observer's vessels."""

    @cached_property
    def vessels(self) -> VesselMap:
        return vessel_map(self.hr, self.field)

    @cached_property
    def power(self) -> np.ndarray | None:
        """(BANDS,), or None where the field is too small for a spectrum."""
        return _power(self.hr, self.field)


@dataclass(frozen=True)
class Estimate:
    """A reconstruction that says how far its values may be off."""

    mean: np.ndarray
    """(H, W, 3) or (H, W), float32 in [0, 1], not rounded."""
    sigma: np.ndarray
    """Standard deviation of its values, (H, W) float32 in shares of full scale; 0 where nothing was sampled."""

    @property
    def pixels(self) -> np.ndarray:
        """As it is written: rounded to uint8."""
        return np.rint(self.mean * 255).astype(np.uint8)

    def coverage(self, hr: np.ndarray, field: np.ndarray) -> float | None:
        """Share of the values in the field with |hr - mean| <= Z sigma, all channels together: 0.9 if sigma is right.

        Args:
            hr: as `mean`, uint8.
            field: (H, W) bool.

        Returns:
            None where nothing was sampled in the field.
        """
        errors = hr[field] / np.float32(255) - self.mean[field]  # (n, 3) or (n,)
        sigma = self.sigma[field]  # (n,)
        if not sigma.any():
            return None
        return coverage(errors, np.broadcast_to(sigma.reshape(-1, *[1] * (errors.ndim - 1)), errors.shape), [Z])[0]


@dataclass(frozen=True)
class Scores:
    """dB, SSIM, distances, shares, and seconds of a method's `run`. inf where pictures are equal.

    None where a score was not asked for, or there is nothing to measure: no label, a picture too small.
    """

    psnr_rgb: float | None = None
    psnr_rgb_fov: float | None = None
    psnr_y: float | None = None
    psnr_y_fov: float | None = None
    ssim_y: float | None = None
    ssim_y_fov: float | None = None
    consistency: float | None = None
    ms_ssim_y: float | None = None
    ms_ssim_y_fov: float | None = None
    st_lpips: float | None = None
    st_lpips_fov: float | None = None
    lpips_alex: float | None = None
    vessel_dice: float | None = None
    """Of the vessels found in the result and in the photograph, both by the photograph's level."""
    vessel_thin: float | None = None
    """Share of the photograph's thin vessels found again."""
    label_dice: float | None = None
    """Of the vessels found in the result and the observer's."""
    label_auc: float | None = None
    label_thin: float | None = None
    sharpness: float | None = None
    coverage: float | None = None
    """Share of the photograph's values that lie where an `Estimate` says 90 % do."""
    cpu_seconds: float | None = None
    """Of this process, all its threads."""
    wall_seconds: float | None = None
    peak_mib: float | None = None


@dataclass(frozen=True)
class Measured:
    """Scores, and the maps they come from, for pictures and plots."""

    scores: Scores
    vessels: VesselMap | None = None
    power: np.ndarray | None = None


SCORES = tuple(field.name for field in fields(Scores))


def prepare(metrics: Sequence[Metric]) -> None:
    """Load what the metrics need, so that a missing extra is said at once. ValueError if so."""
    if "st-lpips" in metrics:
        perceptual.st_lpips_network()
    if "lpips" in metrics:
        perceptual.lpips_network()


def measure(made: np.ndarray | Estimate, subject: Subject, metrics: Sequence[Metric]) -> Measured:
    """Score a reconstruction, seconds and memory apart.

    Args:
        made: as `subject.hr`, or an estimate of it.
        metrics: beside PSNR, SSIM and consistency.

    Raises:
        ValueError: another shape or dtype than the photograph's, or a photograph below 11x11.
    """
    hr, field = subject.hr, subject.field
    sr = made.pixels if isinstance(made, Estimate) else made
    found: dict[str, float | None] = {
        "psnr_rgb": psnr_rgb(sr, hr),
        "psnr_rgb_fov": psnr_rgb(sr, hr, field),
        "psnr_y": psnr_y(sr, hr),
        "psnr_y_fov": psnr_y(sr, hr, field),
        "ssim_y": ssim_y(sr, hr),
        "ssim_y_fov": ssim_y(sr, hr, field),
        "consistency": consistency(sr, subject.lr, subject.scale),
    }
    shortest = min(sr.shape[:2])
    if "ms-ssim" in metrics and shortest >= ms_ssim.SMALLEST:
        found["ms_ssim_y"] = ms_ssim.ms_ssim_y(sr, hr)
        if ms_ssim.fits(field):
            found["ms_ssim_y_fov"] = ms_ssim.ms_ssim_y(sr, hr, field)
    if "st-lpips" in metrics and shortest >= perceptual.ST_LPIPS_SMALLEST:
        whole, inside = perceptual.st_lpips(sr, hr, [None, field])
        found |= {"st_lpips": whole, "st_lpips_fov": inside}
    if "lpips" in metrics and shortest >= perceptual.LPIPS_SMALLEST:
        found["lpips_alex"] = perceptual.lpips_alex(sr, hr)
    vessels = power = None
    if "vessels" in metrics:
        vessels = vessel_map(sr, field, subject.vessels.level)
        found |= _vessel_scores(vessels, subject)
    if "spectrum" in metrics and subject.power is not None:
        power = _power(sr, field)
        assert power is not None  # the same field
        found["sharpness"] = sharpness(power, subject.power, subject.scale)
    if "coverage" in metrics and isinstance(made, Estimate):
        found["coverage"] = made.coverage(hr, field)
    return Measured(Scores(**found), vessels, power)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Mean of each score over those that have it; None where none has."""
    means = {}
    for name in SCORES:
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        means[name] = fmean(values) if values else None
    return Scores(**means)


def _vessel_scores(vessels: VesselMap, subject: Subject) -> dict[str, float | None]:
    field, label = subject.field, subject.label
    found = {
        "vessel_dice": dice(vessels.vessels, subject.vessels.vessels, field),
        "vessel_thin": thin_sensitivity(vessels.vessels, subject.vessels.vessels, field),
    }
    if label is not None:
        found |= {
            "label_dice": dice(vessels.vessels, label, field),
            "label_auc": area_under_curve(vessels.soft, label, field),
            "label_thin": thin_sensitivity(vessels.vessels, label, field),
        }
    return found


def _power(pixels: np.ndarray, field: np.ndarray) -> np.ndarray | None:
    try:
        return radial_power(pixels, field)
    except ValueError:
        return None
