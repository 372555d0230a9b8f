"""Degradations: objects with a name, in one table, that make a low-resolution input from a photograph.

`Camera` imitates a poor camera: light, blur, reduction, noise, mosaic and compression. As in Real-ESRGAN (Wang et al.,
2021, arXiv 2107.10833) a second round of blur, resizing, noise and compression may follow.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from PIL import Image

from retinashift.imaging.degradation.bicubic import Bicubic, bicubic_pillow, check_multiple, resize_channels
from retinashift.imaging.degradation.steps import BLURS, OPTICS, Step, apply_step

logger = logging.getLogger(__name__)

Range = tuple[float, float]
FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""Of the resizing between two rounds: area, bilinear, bicubic."""
_MOST = {"light": 1, "haze": 1, "spots": 1, "noise": 1, "jpeg": 95}


class Degradation(Protocol):
    """A frozen dataclass whose fields are the settings of the YAML section `degradation`, `kind` first."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    exact: ClassVar[bool]
    """Whether the input is the photograph reduced by bicubic and nothing else, so that results must reproduce it."""

    @property
    def kind(self) -> str:
        """Its name in `DEGRADATIONS`."""

    def __call__(self, hr: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
        """The low-resolution input, (H / scale, W / scale, 3) or (H / scale, W / scale), uint8.

        Args:
            hr: (H, W, 3) or (H, W), uint8; H and W multiples of `scale`.
            scale: whole number, at least 1.
            generator: every random choice is drawn from it.

        Raises:
            ValueError: another shape or dtype, or sides that are no multiples of the scale.
        """


@dataclass(frozen=True)
class Camera:
    """A poor camera. The photograph must be RGB; see `Degradation` for the call.

    Every range is (least, most), and the strength is drawn uniformly between them. Lengths are pixels of the photograph
    before reduction; levels are shares of the range from black to white. A probability of 0 leaves a step out.
    """

    exact: ClassVar[bool] = False

    kind: Literal["camera"] = "camera"
    clean_share: float = 0.0
    """Share of the inputs that are only reduced, by bicubic."""
    optics_probability: float = 0.0
    """Of uneven light, of haze and of spots, each: faults of the eye and the lens, not of the camera."""
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
        for name in (field.name for field in fields(self) if field.name != "kind"):
            value, most = getattr(self, name), _MOST.get(name, np.inf)
            if isinstance(value, (int, float)):
                if not 0 <= value <= 1:
                    raise ValueError(f"degradation.{name} is {value}; a probability from 0 to 1 is needed")
            elif not 0 < value[0] <= value[1] <= most:
                limit = f"0 < least <= most <= {most}" if name in _MOST else "0 < least <= most"
                raise ValueError(f"degradation.{name} is {value[0]} to {value[1]}; {limit} is needed")

    def __call__(self, hr: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
        if hr.ndim != 3 or hr.shape[2] != 3 or hr.dtype != np.uint8:
            raise ValueError(f"the photograph is {hr.dtype} {hr.shape}; the camera degradation needs uint8 (H, W, 3)")
        height, width = hr.shape[:2]
        check_multiple(height, width, scale)
        if self.clean_share and generator.random() < self.clean_share:
            return bicubic_pillow(hr, scale)
        small = (height // scale, width // scale)
        image = hr.astype(np.float32) / 255
        for step in OPTICS:
            if generator.random() < self.optics_probability:
                image = self._draw(image, step, generator)
        if generator.random() < self.blur_probability:
            image = self._draw(image, BLURS[generator.integers(len(BLURS))], generator)
        if generator.random() < self.second_order:
            # between the rounds the picture has another size; the second blur is that of the smaller picture
            between = generator.uniform(1 / scale, 1)
            filter_ = FILTERS[generator.integers(len(FILTERS))]
            image = np.clip(resize_channels(image, (round(height * between), round(width * between)), filter_), 0, 1)
            image = self._expose(image, generator)
            if generator.random() < self.blur_probability:
                image = apply_step(image, "isotropic", generator.uniform(0.2, 1.0), generator)
        image = np.clip(resize_channels(image, small, Image.Resampling.BICUBIC), 0, 1)
        image = self._expose(image, generator)
        return np.rint(image * 255).astype(np.uint8)  # (h, w, 3)

    def _expose(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add noise, mosaic and compression: the steps from the sensor on."""
        noisy = generator.random() < self.noise_probability
        mosaiced = generator.random() < self.mosaic_probability
        compressed = generator.random() < self.jpeg_probability
        if noisy:
            image = self._draw(image, "noise", generator)
        if mosaiced:
            image = apply_step(image, "mosaic", 0.0, generator)
        if compressed:
            image = self._draw(image, "jpeg", generator)
        return image

    def _draw(self, image: np.ndarray, step: Step, generator: np.random.Generator) -> np.ndarray:
        return apply_step(image, step, generator.uniform(*getattr(self, step)), generator)


DEGRADATIONS: dict[str, type[Degradation]] = {"bicubic-pillow": Bicubic, "camera": Camera}
"""By the name that settings and reports give."""
_FORMER_NAMES = {"realistic": "camera"}


def read_section(section: Mapping[str, Any]) -> tuple[type[Degradation], dict[str, Any]]:
    """The class that a YAML section `degradation` names, and the settings to construct it with, not yet checked.

    Settings of other degradations, which earlier versions wrote beside any kind, are left out with a note.

    Raises:
        ValueError: an unknown kind, or a setting that no degradation has.

    >>> read_section({"kind": "camera", "second_order": 0.2})
    (<class 'retinashift.imaging.degradation.pipeline.Camera'>, {'second_order': 0.2})
    """
    given = section.get("kind", "bicubic-pillow")
    kind = _FORMER_NAMES.get(given, given) if isinstance(given, str) else ""
    if kind not in DEGRADATIONS:
        raise ValueError(f"degradation.kind is {given!r}; allowed are {', '.join(DEGRADATIONS)}")
    if kind != given:
        logger.warning("degradation.kind %s is now called %s; please rename it in your settings", given, kind)
    allowed = [field.name for field in fields(DEGRADATIONS[kind])]
    elsewhere = {field.name for known in DEGRADATIONS.values() for field in fields(known)}
    if unknown := [key for key in section if key not in elsewhere]:
        raise ValueError(f"unknown setting degradation.{unknown[0]}; allowed are {', '.join(allowed)}")
    if unused := [key for key in section if key not in allowed]:
        logger.warning("degradation.kind %s does not use %s", kind, ", ".join(unused))
    return DEGRADATIONS[kind], {key: value for key, value in section.items() if key in allowed and key != "kind"}


def degrade_by_seed(hr: np.ndarray, scale: int, degradation: Degradation, seed: int) -> np.ndarray:
    """The input for a seed of its own: for worker processes, which share no generator."""
    return degradation(hr, scale, np.random.default_rng(seed))
