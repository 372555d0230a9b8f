"""Blur kernels of the Real-ESRGAN degradation, and filtering with them.

Kernels are float64 and add up to 1. Lengths are in pixels, angles in radians, anticlockwise from the x axis.

Source: Wang, Xie, Dong, Shan, "Real-ESRGAN" (ICCVW 2021), sections 3.1 and 3.3; Liu et al., "Estimating generalized
Gaussian blur kernels for out-of-focus image deblurring" (TCSVT 2020), for the generalised and the plateau shape.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import j1
from torch import Tensor


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, beta: float = 1.0
) -> np.ndarray:
    """exp(-d^beta / 2), (size, size), d the squared distance in units of sigma along the turned axes.

    `beta` 1 is Gaussian, smaller is more pointed, larger flatter. `sigma_y` None is `sigma_x`. `size` is odd.

    >>> round(float(gaussian_kernel(7, 0.6).sum()), 12)
    1.0
    """
    return _normalised(np.exp(-0.5 * _squared_distance(size, sigma_x, sigma_y, theta) ** beta))


def plateau_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, beta: float = 1.0
) -> np.ndarray:
    """1 / (1 + d^beta), (size, size), arguments as in `gaussian_kernel`."""
    return _normalised(1 / (1 + _squared_distance(size, sigma_x, sigma_y, theta) ** beta))


def sinc_kernel(size: int, cutoff: float, padded_to: int = 0) -> np.ndarray:
    """The circular low-pass filter of this cut-off frequency, in radians a pixel: it rings, as over-sharpening does.

    Returns (size, size), or (padded_to, padded_to) with zeros around.
    """
    radius = np.sqrt(_squared_distance(size, 1.0, 1.0, 0.0))
    with np.errstate(invalid="ignore"):
        kernel = cutoff * j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)  # the limit at 0
    return np.pad(_normalised(kernel), max(0, padded_to - size) // 2)


def filter_with(image: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image of a batch with its kernel, mirrored at the border.

    Args:
        image: (B, C, H, W), sides larger than half the kernel.
        kernels: (B, k, k), or (k, k) for all; k odd.
    """
    batch, channels, height, width = image.shape
    kernels = kernels.to(image).expand(batch, *kernels.shape[-2:])
    radius = kernels.shape[-1] // 2
    padded = F.pad(image, (radius,) * 4, mode="reflect").transpose(0, 1)  # (C, B, H + 2r, W + 2r)
    return F.conv2d(padded, kernels[:, None], groups=batch).transpose(0, 1).view(batch, channels, height, width)


def unsharp_mask(image: Tensor, size: int = 51, weight: float = 0.5, threshold: float = 10 / 255) -> Tensor:
    """Sharpen (B, C, H, W) in [0, 1] where it differs from its blurred self by more than the threshold."""
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8  # what OpenCV takes for a kernel of this size
    kernel = torch.from_numpy(gaussian_kernel(size, sigma))
    detail = image - filter_with(image, kernel)
    where = filter_with((detail.abs() > threshold).to(image), kernel)
    return torch.lerp(image, (image + weight * detail).clamp(0, 1), where)


def _squared_distance(size: int, sigma_x: float, sigma_y: float | None, theta: float) -> np.ndarray:
    """v' S^-1 v for each pixel v around the centre, S the covariance with these axes; (size, size)."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; a kernel has an odd number of pixels a side")
    x, y = np.meshgrid(*(np.arange(size) - size // 2,) * 2)
    along = x * np.cos(theta) + y * np.sin(theta)
    across = y * np.cos(theta) - x * np.sin(theta)
    return (along / sigma_x) ** 2 + (across / (sigma_x if sigma_y is None else sigma_y)) ** 2


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()
