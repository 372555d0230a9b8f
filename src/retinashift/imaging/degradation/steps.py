"""The steps of a poor photograph: optics of the eye and the lens, blur, noise, Bayer mosaic, compression.

Pictures are (H, W, 3) float32 in [0, 1]. Random numbers come from a NumPy generator: the same seed gives the same
picture. Uneven light, haze and spots are the models of Shen, Fu, Shen, Shao, "Modeling and enhancing low-quality
retinal fundus images", IEEE TMI 40(3), 2021.
"""

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image
from scipy import ndimage, signal
from scipy.special import expit

Step = Literal["light", "haze", "spots", "isotropic", "anisotropic", "defocus", "motion", "noise", "mosaic", "jpeg"]
STEPS: tuple[Step, ...] = get_args(Step)
OPTICS: tuple[Step, ...] = ("light", "haze", "spots")
BLURS: tuple[Step, ...] = ("isotropic", "anisotropic", "defocus", "motion")
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
HAZE_COLOUR = (0.85, 0.72, 0.55)
"""Colour of the light that a cloudy lens scatters back: the flash, reddened by the eye."""


def apply_step(image: np.ndarray, step: Step, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Apply one step at a given strength, in the units of its range in `Camera`; "mosaic" has none.

    (H, W, 3) float32 in [0, 1] stays such.
    """
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
    """Add dust and drops on the lens, out of focus: soft round spots that change the range by `strength`.

    May leave [0, 1].
    """
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
    """Kernel of a lens: a Gaussian, `sigma` pixels along its longer axis, `angle` radians from horizontal.

    (K, K) of sum 1; `ratio` is the shorter axis over the longer.
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
    """Add photon and read noise: variance gain * signal + read^2, independent in each pixel. May leave [0, 1].

    1 / gain is the number of electrons of a white pixel.
    """
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


_Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
_STEPS: dict[Step, _Apply] = {
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
