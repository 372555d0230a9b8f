"""The realistic degradation: from a sharp photograph to what a poor camera would have made of that eye.

Optics of the eye, blur, reduction, mosaic, noise and compression follow one another as light does; each takes place by
chance, with a strength drawn from a stated range. As in Real-ESRGAN (Wang et al., 2021, arXiv 2107.10833) a second
round of blur, resizing, noise and compression may follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from retinashift.imaging.degradation.camera import (
    blur,
    defocus_kernel,
    demosaic_bilinear,
    gaussian_kernel,
    jpeg,
    mosaic,
    motion_kernel,
    sensor_noise,
)
from retinashift.imaging.degradation.optics import haze, spots, uneven_light

Range = tuple[float, float]
Step = Literal["light", "haze", "spots", "isotropic", "anisotropic", "defocus", "motion", "noise", "mosaic", "jpeg"]
STEPS: tuple[Step, ...] = get_args(Step)
BLURS: tuple[Step, ...] = ("isotropic", "anisotropic", "defocus", "motion")
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class DegradationSettings:
    """How an input is made from a photograph. Every range is (least, most), the strength uniform between them.

    Lengths are pixels of the photograph before reduction; levels are shares of the range from black to white. A
    probability of 0 leaves a step out.
    """

    kind: Literal["bicubic-pillow", "realistic"] = "bicubic-pillow"
    """bicubic-pillow: the protocol of the published figures, nothing else. realistic: everything below."""
    optics_probability: float = 0.3
    """Of uneven light, of haze, and of spots, each."""
    light: Range = (0.1, 0.6)
    """Share of the light that is added or missing in a broad patch."""
    haze: Range = (0.05, 0.4)
    """Share of the light that a cloudy lens scatters."""
    spots: Range = (0.03, 0.25)
    """Brightness of spots of dust; 1 to 8 of them."""
    blur_probability: float = 0.8
    """Of one of the four blurs, drawn evenly."""
    isotropic: Range = (0.3, 3.0)
    """Sigma of a Gaussian."""
    anisotropic: Range = (0.6, 4.0)
    """Sigma along the longer axis; the shorter one is 0.3 to 0.9 of it."""
    defocus: Range = (0.5, 4.0)
    """Radius of a disk."""
    motion: Range = (1.5, 10.0)
    """Length of a line."""
    noise_probability: float = 0.8
    noise: Range = (0.002, 0.03)
    """Standard deviation of a white pixel: 0.8 of the variance from photons, the rest from reading."""
    mosaic_probability: float = 0.5
    jpeg_probability: float = 0.7
    jpeg: Range = (5.0, 60.0)
    """100 less the quality; the chroma is subsampled by chance."""
    second_order: float = 0.0
    """Probability of a second, weaker round of blur, resizing, noise and compression."""

    def __post_init__(self) -> None:
        for name in ("optics_probability", "blur_probability", "noise_probability", "mosaic_probability",
                     "jpeg_probability", "second_order"):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"degradation.{name} is {getattr(self, name)}; a probability from 0 to 1 is needed")
        for name in ("light", "haze", "spots", "isotropic", "anisotropic", "defocus", "motion", "noise", "jpeg"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"degradation.{name} is {low} to {high}; 0 < least <= most is needed")
        for name, most in (("light", 1), ("haze", 1), ("spots", 1), ("noise", 1), ("jpeg", 95)):
            if getattr(self, name)[1] > most:
                raise ValueError(f"degradation.{name} is up to {getattr(self, name)[1]}; at most {most} is allowed")


def apply_step(image: np.ndarray, step: Step, strength: float, generator: np.random.Generator) -> np.ndarray:
    """One step at a given strength, in the units of its range in `DegradationSettings`.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        step: which; "mosaic" has no strength.
        strength: at least 0.
        generator: draws place, direction and noise.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    return np.clip(_STEPS[step](image, strength, generator), 0, 1)


def realistic(hr: np.ndarray, scale: int, settings: DegradationSettings, generator: np.random.Generator) -> np.ndarray:
    """The input that a poor camera would have made.

    Args:
        hr: (H, W, 3), uint8; H and W multiples of `scale`.
        scale: whole number, at least 1.
        settings: ranges and probabilities.
        generator: every choice is drawn from it.

    Returns:
        (H / scale, W / scale, 3), uint8.

    Raises:
        ValueError: another shape or dtype, or sides that are no multiple of the scale.
    """
    if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8:
        raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; uint8 (H, W, 3) is needed")
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"the photograph is {width}x{height}, no multiple of {scale}; call crop_to_multiple first")
    small = (height // scale, width // scale)
    image = hr.astype(np.float32) / 255
    for step in ("light", "haze", "spots"):
        if generator.random() < settings.optics_probability:
            image = _drawn(image, step, settings, generator)
    if generator.random() < settings.blur_probability:
        image = _drawn(image, BLURS[generator.integers(len(BLURS))], settings, generator)
    second = generator.random() < settings.second_order
    if second:
        # between the rounds the picture has another size; the second blur is that of the smaller picture
        between = generator.uniform(1 / scale, 1)
        image = resize(image, (round(height * between), round(width * between)), generator)
        image = _exposed(image, settings, generator)
        if generator.random() < settings.blur_probability:
            image = apply_step(image, "isotropic", generator.uniform(0.2, 1.0), generator)
    image = np.clip(_resize(image, small, Image.Resampling.BICUBIC), 0, 1)
    image = _exposed(image, settings, generator)
    return np.rint(image * 255).astype(np.uint8)  # (h, w, 3)


def realistic_by_seed(hr: np.ndarray, scale: int, settings: DegradationSettings, seed: int) -> np.ndarray:
    """`realistic` with a generator of its own, for other processes, which share none."""
    return realistic(hr, scale, settings, np.random.default_rng(seed))


def resize(image: np.ndarray, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """To (height, width) by a filter drawn from area, bilinear and bicubic. (H, W, 3) float32 in [0, 1]."""
    filters = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return np.clip(_resize(image, size, filters[generator.integers(len(filters))]), 0, 1)


def _exposed(image: np.ndarray, settings: DegradationSettings, generator: np.random.Generator) -> np.ndarray:
    """Noise, mosaic, compression: what happens once the light is on the sensor."""
    noisy = generator.random() < settings.noise_probability
    mosaiced = generator.random() < settings.mosaic_probability
    compressed = generator.random() < settings.jpeg_probability
    if noisy:
        image = _drawn(image, "noise", settings, generator)
    if mosaiced:
        image = apply_step(image, "mosaic", 0.0, generator)
    if compressed:
        image = _drawn(image, "jpeg", settings, generator)
    return image


def _drawn(image: np.ndarray, step: Step, settings: DegradationSettings, generator: np.random.Generator) -> np.ndarray:
    return apply_step(image, step, generator.uniform(*getattr(settings, step)), generator)


def _anisotropic(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    return blur(image, gaussian_kernel(strength, generator.uniform(0.3, 0.9), generator.uniform(0, np.pi)))


def _noise(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    return sensor_noise(image, 0.8 * strength**2, np.sqrt(0.2) * strength, generator)


def _jpeg(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    return jpeg(image, round(100 - strength), SUBSAMPLINGS[generator.integers(len(SUBSAMPLINGS))])


_STEPS: dict[Step, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "light": uneven_light,
    "haze": haze,
    "spots": lambda image, strength, generator: spots(image, int(generator.integers(1, 9)), strength, generator),
    "isotropic": lambda image, strength, generator: blur(image, gaussian_kernel(strength)),
    "anisotropic": _anisotropic,
    "defocus": lambda image, strength, generator: blur(image, defocus_kernel(strength)),
    "motion": lambda image, strength, generator: blur(image, motion_kernel(strength, generator.uniform(0, np.pi))),
    "noise": _noise,
    "mosaic": lambda image, strength, generator: demosaic_bilinear(mosaic(image)),
    "jpeg": _jpeg,
}


def _resize(image: np.ndarray, size: tuple[int, int], filter_: Image.Resampling) -> np.ndarray:
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., c])).resize(size[::-1], filter_)) for c in range(3)
    ]
    return np.stack(channels, -1)  # (height, width, 3)
