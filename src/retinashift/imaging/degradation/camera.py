"""Steps of a camera: blur, noise, Bayer mosaic, compression. Pure functions of float pictures.

Pictures are (H, W, 3) float32 in [0, 1]. Random numbers come from a NumPy generator: the same seed gives the same
picture.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage, signal


def gaussian_kernel(sigma: float, ratio: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Kernel of a lens: a Gaussian, isotropic at `ratio` 1. (K, K) of sum 1.

    Args:
        sigma: standard deviation in pixels along the longer axis, above 0.
        ratio: shorter axis over longer, above 0 and at most 1.
        angle: of the longer axis, radians from horizontal.
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

    Args:
        gain: variance of the photon noise of a white pixel; 1 / gain is its number of electrons.
        read: standard deviation of the amplifier's noise, as a share of the range.
        generator: draws the noise.
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
