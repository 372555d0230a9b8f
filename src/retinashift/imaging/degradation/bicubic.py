"""The bicubic degradation of the protocol, and interpolation back. All by Pillow, nothing random.

The degradation of published scores is `bicubic-pillow`: Pillow's antialiased bicubic (Keys, a = -0.5), then rounding.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from PIL import Image

Enlargement = Literal["nearest", "bicubic", "lanczos"]

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Enlargement)}


def crop_to_multiple(hr: np.ndarray, multiple: int) -> np.ndarray:
    """A view of (H, W) or (H, W, C), cropped right and bottom so that both sides are multiples of a whole number.

    ValueError for `multiple` below 1, or an image smaller than it.

    >>> crop_to_multiple(np.zeros((10, 7, 3)), 4).shape
    (8, 4, 3)
    """
    _check(hr, multiple, "multiple")
    height, width = hr.shape[:2]
    if min(height, width) < multiple:
        raise ValueError(f"the image is {width}x{height}; at least {multiple}x{multiple} pixels are needed")
    return hr[: height - height % multiple, : width - width % multiple]


def bicubic_pillow(hr: np.ndarray, scale: int) -> np.ndarray:
    """The low-resolution image of the protocol, (H / scale, W / scale) or (H / scale, W / scale, C), dtype of `hr`.

    uint8 is rounded to 8 bit as Pillow does; uint16 is computed in float32, rounded, and clipped to 0..65535 where the
    kernel overshoots. Channels are independent of one another.

    Args:
        hr: (H, W) or (H, W, C), uint8 or uint16; H and W multiples of `scale`, a whole number (see `crop_to_multiple`).

    Raises:
        ValueError: another scale, dtype or size.

    >>> bicubic_pillow(np.full((8, 12), 7, np.uint8), 4)
    array([[7, 7, 7],
           [7, 7, 7]], dtype=uint8)
    """
    _check(hr, scale, "scale")
    return resize(hr, reduced_size(hr, scale), "bicubic")


def reduced_size(hr: np.ndarray, scale: int) -> tuple[int, int]:
    """Height and width after reduction by the scale. ValueError for sides that are no multiples of it."""
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"the image is {width}x{height}, no multiple of {scale}; call crop_to_multiple first")
    return height // scale, width // scale


@dataclass(frozen=True)
class Bicubic:
    """`bicubic_pillow` as a degradation (see `degradation.pipeline`): the protocol of the published scores."""

    exact: ClassVar[bool] = True
    kind: Literal["bicubic-pillow"] = "bicubic-pillow"

    def __call__(self, hr: np.ndarray, scale: int, generator: np.random.Generator | None = None) -> np.ndarray:
        return bicubic_pillow(hr, scale)


def enlarge(lr: np.ndarray, scale: int, method: Enlargement) -> np.ndarray:
    """Interpolate (H, W) or (H, W, C), uint8 or uint16: the baseline that every method has to beat.

    Returns:
        (H * scale, W * scale) or (H * scale, W * scale, C), dtype of `lr`; rounding as in `bicubic_pillow`.

    Raises:
        ValueError: a scale that is no whole number of at least 1, or another dtype or method.

    >>> enlarge(np.array([[1, 2]], np.uint8), 2, "nearest")
    array([[1, 1, 2, 2],
           [1, 1, 2, 2]], dtype=uint8)
    """
    _check(lr, scale, "scale")
    if method not in _RESAMPLING:
        raise ValueError(f"method is {method!r}; allowed are {', '.join(_RESAMPLING)}")
    return resize(lr, (lr.shape[0] * scale, lr.shape[1] * scale), method)


def resize(pixels: np.ndarray, size: tuple[int, int], method: Enlargement) -> np.ndarray:
    """`enlarge` to any (height, width)."""
    filter_ = _RESAMPLING[method]
    if pixels.dtype == np.uint8:
        return resize_channels(pixels, size, filter_)
    if pixels.dtype != np.uint16:
        raise ValueError(f"the image is {pixels.dtype}; uint8 or uint16 is needed")
    # Pillow reduces 16-bit images without the antialiasing filter or not at all, so they go through its float mode.
    return np.rint(resize_channels(pixels.astype(np.float32), size, filter_)).clip(0, 65535).astype(np.uint16)


def _check(pixels: np.ndarray, factor: int, name: str) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (int, np.integer)) or factor < 1:
        raise ValueError(f"{name} is {factor!r}; a whole number of at least 1 is needed")
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"the image has shape {pixels.shape}; (H, W) or (H, W, C) is needed, no side empty")


def resize_channels(pixels: np.ndarray, size: tuple[int, int], filter_: Image.Resampling) -> np.ndarray:
    """Resize uint8 or float32 to (height, width), each channel by itself.

    Equal to Pillow's RGB result, and alpha is not multiplied into the colours. float32 may leave its range.
    """
    if pixels.ndim == 3:
        return np.stack([resize_channels(channel, size, filter_) for channel in np.moveaxis(pixels, 2, 0)], axis=-1)
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize(size[::-1], filter_))


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5 (1981, eq. 15)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
