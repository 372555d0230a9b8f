"""Pictures in the forms that callers have, and back: PIL, arrays of any depth, tensors, grey or colour."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinashift.inference.consistency import compare_with_input

Picture = Image.Image | np.ndarray | Tensor
OutputType = Literal["np", "pil", "pt"]


@dataclass(frozen=True)
class Prepared:
    """One input as the chain sees it, and how to go back."""

    lr: Tensor  # (1, 3, h, w) in [-1, 1]
    grey: bool
    levels: int | None  # 255 or 65535 for integer pictures, None for float ones


def as_list(image: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several as a list. ValueError for what is none."""
    one = isinstance(image, (Image.Image, np.ndarray, str)) or (isinstance(image, Tensor) and image.ndim < 4)
    pictures: list[Any] = list(image) if isinstance(image, (Sequence, Tensor)) and not one else [image]
    for picture in pictures:
        if not isinstance(picture, (Image.Image, np.ndarray, Tensor)):
            raise ValueError(
                f"image is {picture!r:.80}; a PIL image, an array or a tensor is needed, or a list of them: "
                "open a file by PIL.Image.open"
            )
    return pictures


def prepare(picture: Picture, device: torch.device, dtype: torch.dtype) -> Prepared:
    """Any accepted picture as a (1, 3, h, w) tensor in [-1, 1]."""
    levels, grey = None, False
    if isinstance(picture, Image.Image):
        if picture.mode not in ("L", "RGB", "I;16"):
            raise ValueError(f"image mode is {picture.mode}; L, RGB and I;16 are supported (convert it first)")
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        levels = {"uint8": 255, "uint16": 65535}.get(picture.dtype.name)
        if levels is None and picture.dtype.kind != "f":
            raise ValueError(f"image is {picture.dtype}; uint8, uint16 and float in [0, 1] are supported")
        grey = picture.ndim == 2
        if not grey and picture.shape[2:] != (3,):
            raise ValueError(f"image has shape {picture.shape}; (H, W) and (H, W, 3) are supported")
        array = picture.astype(np.float32) / (levels or 1)
        tensor = torch.from_numpy(array[None] if grey else array.transpose(2, 0, 1))
    elif picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
        raise ValueError(f"tensor is {tuple(picture.shape)} {picture.dtype}; float (3, H, W) in [0, 1] is supported")
    else:
        tensor = picture.float()
    if min(tensor.shape[-2:]) < 1:
        raise ValueError(f"image is {tensor.shape[-1]}x{tensor.shape[-2]}; it is empty")
    if levels is None and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(f"float image spans {tensor.min():.3g}..{tensor.max():.3g}; it must lie in [0, 1]")
    lr = (tensor.expand(3, -1, -1)[None] * 2 - 1).to(device, dtype)  # (1, 3, h, w)
    return Prepared(lr, grey, levels)


class Canvas:
    """The finished image, which rows in about [-1, 1] are written into; clipped to what its form can hold."""

    def __init__(self, prepared: Prepared, size: tuple[int, int], output_type: OutputType):
        self.prepared, self.size, self.output_type, self.row = prepared, size, output_type, 0
        self.levels = {"pil": 255, "pt": None}.get(output_type, prepared.levels)
        dtype = {255: np.uint8, 65535: np.uint16, None: np.float32}[self.levels]
        if output_type == "pt":
            self.image: np.ndarray = np.empty((3, *size), dtype).transpose(1, 2, 0)
        else:
            self.image = np.empty(size if prepared.grey else (*size, 3), dtype)

    def write(self, rows: Tensor) -> None:
        """The next rows, (1, 1 or 3, n, W). ValueError if a value is not finite: no picture may come of it."""
        if not rows.isfinite().all():
            raise ValueError("the result holds values that are not finite; use precision fp32, or another checkpoint")
        band = (rows[0] / 2 + 0.5).clamp(0, 1).cpu().permute(1, 2, 0).numpy()  # (n, W, 1 or 3)
        band = band[..., 0] if self.image.ndim == 2 else band
        self.image[self.row : self.row + len(band)] = np.rint(band * self.levels) if self.levels else band
        self.row += len(band)

    def finished(self) -> Picture:
        if self.output_type == "pt":
            return torch.from_numpy(self.image.transpose(2, 0, 1))
        return Image.fromarray(self.image) if self.output_type == "pil" else self.image

    def compare_with_input(self) -> tuple[float, np.ndarray]:
        """The finished image, see `consistency.compare_with_input`."""
        lr = (self.prepared.lr[0].float() / 2 + 0.5).cpu().permute(1, 2, 0).numpy()  # (h, w, 3) in [0, 1]
        return compare_with_input(self.image, lr[..., 0] if self.image.ndim == 2 else lr)


def turn(x: Tensor, way: int) -> Tensor:
    """The last two dimensions in one of eight ways: transposed (4), then turned upside down (2), then mirrored (1)."""
    return _flipped(x.mT if way & 4 else x, way)


def turn_back(x: Tensor, way: int) -> Tensor:
    """The inverse of `turn`.

    >>> x = torch.arange(6).view(2, 3)
    >>> all(torch.equal(turn_back(turn(x, way), way), x) for way in range(8))
    True
    """
    x = _flipped(x, way)
    return x.mT if way & 4 else x


def _flipped(x: Tensor, way: int) -> Tensor:
    return x.flip([side for bit, side in ((2, -2), (1, -1)) if way & bit]) if way & 3 else x


class SampleMean:
    """Mean of samples, (C, H, W) each, that come in bands of rows, in memory that does not grow with their number."""

    def __init__(self, shape: tuple[int, int, int]):
        self.mean, self.count = torch.zeros(1, *shape), 0

    def add(self, sample: Iterable[Tensor], way: int = 0) -> None:
        """One sample, (1, C, n, W) at a time, top to bottom, turned one `way`."""
        self.count += 1
        mean = self.mean.mT if way & 4 else self.mean  # a view
        top = 0
        for rows in sample:
            rows = _flipped(rows.cpu(), way)
            bottom = top + rows.shape[-2]
            place = slice(mean.shape[-2] - bottom, mean.shape[-2] - top) if way & 2 else slice(top, bottom)
            mean[..., place, :] += (rows - mean[..., place, :]) / self.count
            top = bottom
