"""Degradations: objects with a name, in one table, that make a low-resolution input from a photograph.

`Camera` imitates a poor camera by steps: optics of the eye and the lens, blur, reduction, noise, Bayer mosaic and
compression. As in Real-ESRGAN (Wang et al., 2021, arXiv 2107.10833) a second round of blur, resizing, noise and
compression may follow. Uneven light, haze and spots are the models of Shen, Fu, Shen, Shao, "Modeling and enhancing
low-quality retinal fundus images", IEEE TMI 40(3), 2021. Random numbers come from a NumPy generator.
"""

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from PIL import Image
from scipy import ndimage, signal
from scipy.special import expit

from retinashift.imaging.degradation.bicubic import Bicubic, bicubic_pillow, reduced_size, resize_channels

logger = logging.getLogger(__name__)

Range = tuple[float, float]
Step = Literal["light", "haze", "spots", "isotropic", "anisotropic", "defocus", "motion", "noise", "mosaic", "jpeg"]
STEPS: tuple[Step, ...] = get_args(Step)
OPTICS: tuple[Step, ...] = ("light", "haze", "spots")
BLURS: tuple[Step, ...] = ("isotropic", "anisotropic", "defocus", "motion")
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
HAZE_COLOUR = (0.85, 0.72, 0.55)
"""Colour of the light that a cloudy lens scatters back: the flash, reddened by the eye."""
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
            hr: (H, W, 3) or (H, W), uint8; H and W multiples of `scale`, a whole number.
            generator: every random choice is drawn from it.

        Raises:
            ValueError: another shape or dtype, or sides that are no multiples of the scale.
        """


def apply_step(image: np.ndarray, step: Step, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Apply a step to (H, W, 3) float32 in [0, 1], clipped; the strength is in the units of its range in `Camera`."""
    return np.clip(_STEPS[step](image, strength, generator), 0, 1)


def uneven_light(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Brighten or darken a broad Gaussian patch, by `strength` of the light at its centre. May exceed 1."""
    patch = _patch(image.shape[:2], generator, 0.3, 0.7)
    sign = 1.0 if generator.random() < 0.5 else -1.0
    return (image * (1 + sign * strength * patch[..., None])).astype(np.float32)


def haze(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Add the haze of a cloudy lens: J t + A (1 - t), transmission t = 1 - strength * (0.6 to 1, smooth)."""
    cloud = 0.6 + 0.4 * _patch(image.shape[:2], generator, 0.4, 0.8)  # (H, W)
    transmission = 1 - strength * cloud[..., None]
    field = ndimage.gaussian_filter(np.minimum(image.max(2) / 0.1, 1), 2)[..., None]  # no haze on the dark surround
    scattered = np.asarray(HAZE_COLOUR, np.float32) * field
    return (image * transmission + scattered * (1 - transmission)).astype(np.float32)


def spots(image: np.ndarray, count: int, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Add dust and drops on the lens: soft round spots that change the range by `strength`. May leave [0, 1]."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = np.zeros((height, width), np.float32)
    for _ in range(count):
        row, column = generator.uniform(0, height), generator.uniform(0, width)
        radius = generator.uniform(0.005, 0.04) * min(height, width)
        sign = 1.0 if generator.random() < 0.7 else -0.6  # bright spots are the more common ones
        beyond = (np.hypot(y - row, x - column) - radius) / (0.2 * radius + 0.5)
        total += sign * strength * expit(-beyond)  # flat in the middle, as a disk out of focus is, soft at the edge
    seen = np.minimum(image.max(2, keepdims=True) / 0.1, 1)  # not on the dark surround
    return (image + total[..., None] * seen * np.asarray((1.0, 0.9, 0.7), np.float32)).astype(np.float32)


def _patch(shape: tuple[int, int], generator: np.random.Generator, narrowest: float, widest: float) -> np.ndarray:
    """A Gaussian of height 1 somewhere in the picture, its widths drawn as shares of it: (H, W) float32."""
    height, width = shape
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    row, column = generator.uniform(0.1, 0.9, 2)
    wide, high = generator.uniform(narrowest, widest, 2)
    return np.exp(-0.5 * (((y - row) / high) ** 2 + ((x - column) / wide) ** 2)).astype(np.float32)


def gaussian_kernel(sigma: float, ratio: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Kernel of a lens, (K, K) of sum 1: a Gaussian, `sigma` pixels along its longer axis, `ratio` of it across.

    `angle` is in radians from horizontal.
    """
    along, across = _grid(int(np.ceil(3.5 * sigma)), angle)
    return _normal(np.exp(-0.5 * ((along / sigma) ** 2 + (across / (sigma * ratio)) ** 2)))


def defocus_kernel(radius: float) -> np.ndarray:
    """Kernel of a lens out of focus: a disk with an antialiased edge. `radius` in pixels, above 0. (K, K) of sum 1."""
    x, y = _grid(int(np.ceil(radius)) + 1)
    return _normal(np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Kernel of an eye that moved: a line, `length` pixels, `angle` radians from horizontal. (K, K) of sum 1."""
    along, across = _grid(int(np.ceil(length / 2)) + 1, angle)
    return _normal(np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1))


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve the channels with a kernel; the border is mirrored. (H, W, 3) -> (H, W, 3)."""
    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    return signal.oaconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)).astype(np.float32)


def sensor_noise(image: np.ndarray, gain: float, read: float, generator: np.random.Generator) -> np.ndarray:
    """Add noise of variance gain * signal + read^2; 1 / gain electrons fill a white pixel. May leave [0, 1]."""
    noisy = generator.poisson(np.clip(image, 0, 1) / gain) * gain if gain > 0 else image
    return (noisy + generator.normal(0, read, image.shape)).astype(np.float32)


def mosaic(image: np.ndarray) -> np.ndarray:
    """Sample a picture with an RGGB Bayer filter: one colour a pixel. (H, W, 3) -> (H, W)."""
    seen = image[..., 1].copy()
    seen[::2, ::2] = image[::2, ::2, 0]
    seen[1::2, 1::2] = image[1::2, 1::2, 2]
    return seen


def demosaic_bilinear(seen: np.ndarray) -> np.ndarray:
    """Interpolate colours bilinearly from the nearest samples: (H, W) of `mosaic` -> (H, W, 3) float32."""
    row, column = np.indices(seen.shape) % 2
    channels = []
    for where in ((row == 0) & (column == 0), row != column, (row == 1) & (column == 1)):
        weight = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)
        values, count = (ndimage.convolve(np.where(where, a, 0).astype(np.float32), weight) for a in (seen, 1.0))
        channels.append(np.where(where, seen, values / count))
    return np.stack(channels, -1).astype(np.float32)  # (H, W, 3)


def jpeg(image: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    """Round to 8 bit, compress and decompress as JPEG of quality 1 to 95, with chroma "4:4:4", "4:2:2" or "4:2:0"."""
    buffer = io.BytesIO()
    eight = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(eight).save(buffer, "JPEG", quality=int(quality), subsampling=subsampling)
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return np.asarray(decoded, np.float32) / 255


def _grid(reach: int, angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """How far each place of a kernel lies along a direction, radians from horizontal, and across it."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _normal(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()


_STEPS: dict[Step, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "light": uneven_light,
    "haze": haze,
    "spots": lambda image, strength, rng: spots(image, int(rng.integers(1, 9)), strength, rng),
    "isotropic": lambda image, strength, rng: blur(image, gaussian_kernel(strength)),
    "anisotropic": lambda image, strength, rng: blur(
        image, gaussian_kernel(strength, rng.uniform(0.3, 0.9), rng.uniform(0, np.pi))
    ),
    "defocus": lambda image, strength, rng: blur(image, defocus_kernel(strength)),
    "motion": lambda image, strength, rng: blur(image, motion_kernel(strength, rng.uniform(0, np.pi))),
    "noise": lambda image, strength, rng: sensor_noise(image, 0.8 * strength**2, np.sqrt(0.2) * strength, rng),
    "mosaic": lambda image, strength, rng: demosaic_bilinear(mosaic(image)),
    "jpeg": lambda image, strength, rng: jpeg(
        image, round(100 - strength), SUBSAMPLINGS[rng.integers(len(SUBSAMPLINGS))]
    ),
}


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
        small = reduced_size(hr, scale)
        if self.clean_share and generator.random() < self.clean_share:
            return bicubic_pillow(hr, scale)
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
            size = round(hr.shape[0] * between), round(hr.shape[1] * between)
            image = np.clip(resize_channels(image, size, filter_), 0, 1)
            image = self._expose(image, generator)
            if generator.random() < self.blur_probability:
                image = apply_step(image, "isotropic", generator.uniform(0.2, 1.0), generator)
        image = np.clip(resize_channels(image, small, Image.Resampling.BICUBIC), 0, 1)
        image = self._expose(image, generator)
        return np.rint(image * 255).astype(np.uint8)  # (h, w, 3)

    def _expose(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Add noise, mosaic and compression: the steps from the sensor on."""
        chances: dict[Step, float] = {
            "noise": self.noise_probability, "mosaic": self.mosaic_probability, "jpeg": self.jpeg_probability,
        }  # fmt: skip
        for step in [step for step, chance in chances.items() if generator.random() < chance]:
            image = self._draw(image, step, generator)
        return image

    def _draw(self, image: np.ndarray, step: Step, generator: np.random.Generator) -> np.ndarray:
        strength = 0.0 if step == "mosaic" else generator.uniform(*getattr(self, step))
        return apply_step(image, step, strength, generator)


DEGRADATIONS: dict[str, type[Degradation]] = {"bicubic-pillow": Bicubic, "camera": Camera}
"""By the name that settings and reports give."""
_FORMER_NAMES = {"realistic": "camera"}


def read_section(section: Mapping[str, Any]) -> tuple[type[Degradation], dict[str, Any]]:
    """The class that a YAML section `degradation` names, and the settings to construct it with, not yet checked.

    Settings of other degradations, which earlier versions wrote beside any kind, are left out with a note. ValueError
    for an unknown kind, or a setting that no degradation has.

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
