"""Pictures in every accepted form, as the chain sees them, and results in the form they are wanted in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retinashift.imaging.fundus import field_box
from retinashift.inference.regions import Box

Picture = Image.Image | np.ndarray | Tensor
Mask = Image.Image | np.ndarray
OutputType = Literal["np", "pil", "pt"]


@dataclass(frozen=True)
class Prepared:
    """One input as the chain sees it: `lr` (1, 3, h, w) in [-1, 1]; `grey` and `levels` tell how to go back.

    `mask` (1, 1, h, w), 1 where the picture is to be filled in and -1 elsewhere, or None.
    """

    lr: Tensor
    grey: bool
    levels: int | None
    """255 or 65535 for integer pictures, None for float ones."""
    mask: Tensor | None = None

    @property
    def frame(self) -> Box:
        height, width = self.lr.shape[-2:]
        return Box(0, height, 0, width)

    def eye(self) -> Box:
        """The rectangle that holds all that is not dark surround; see `field_box`."""
        levels = self.lr[0].permute(1, 2, 0).float().add(1).mul(127.5).round().to(torch.uint8)  # (h, w, 3)
        rows, columns = field_box(levels.cpu().numpy())
        return Box(rows.start, rows.stop, columns.start, columns.stop)

    def window(self, box: Box) -> Prepared:
        """The same of a part of the picture."""
        rows, columns = box.slices
        mask = None if self.mask is None else self.mask[..., rows, columns]
        return replace(self, lr=self.lr[..., rows, columns], mask=mask)


def as_list(image: Picture | Sequence[Picture]) -> list[Picture]:
    if isinstance(image, (Image.Image, np.ndarray)):
        return [image]
    if isinstance(image, Tensor) and image.ndim == 3:
        return [image]
    return list(image)


def as_masks(
    mask: Mask | Sequence[Mask] | None, images: list[Picture], takes_mask: bool
) -> Sequence[np.ndarray | None]:
    """One (H, W) bool array for each image, or None for each."""
    if takes_mask != (mask is not None):
        wanted = "fills in, so a mask is needed" if takes_mask else "does not fill in, so a mask means nothing to it"
        raise ValueError(f"this checkpoint {wanted}")
    if mask is None:
        return [None] * len(images)
    masks = [np.asarray(m) for m in ([mask] if isinstance(mask, (Image.Image, np.ndarray)) else mask)]
    for array in masks:
        if array.ndim != 2:
            raise ValueError(f"a mask has shape {array.shape}; (H, W) is needed")
    if len(masks) != len(images):
        raise ValueError(f"{len(masks)} masks were given for {len(images)} images; give one each")
    return [array != 0 for array in masks]


def masked(prepared: Prepared, hole: np.ndarray | None) -> Prepared:
    """The hole black, as in training, and beside it as 1 and -1."""
    if hole is None:
        return prepared
    if hole.shape != prepared.lr.shape[-2:]:
        height, width = prepared.lr.shape[-2:]
        raise ValueError(f"the mask is {hole.shape[1]}x{hole.shape[0]} and its image {width}x{height}")
    mask = torch.from_numpy(hole)[None, None].to(prepared.lr.device)
    return replace(prepared, lr=prepared.lr.masked_fill(mask, -1), mask=mask.to(prepared.lr) * 2 - 1)


def prepare(picture: Picture, device: torch.device, dtype: torch.dtype) -> Prepared:
    """Any accepted picture as a (1, 3, h, w) tensor in [-1, 1]."""
    if isinstance(picture, Image.Image):
        if picture.mode not in ("L", "RGB", "I;16"):
            raise ValueError(f"image mode is {picture.mode}; L, RGB and I;16 are supported (convert it first)")
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        levels = {"uint8": 255, "uint16": 65535}.get(picture.dtype.name)
        if levels is None and picture.dtype.kind != "f":
            raise ValueError(f"image is {picture.dtype}; uint8, uint16 and float in [0, 1] are supported")
        grey = picture.ndim == 2
        if not grey and (picture.ndim != 3 or picture.shape[2] != 3):
            raise ValueError(f"image has shape {picture.shape}; (H, W) and (H, W, 3) are supported")
        array = picture.astype(np.float32) / (levels or 1)
        tensor = torch.from_numpy(array)[None] if grey else torch.from_numpy(array).permute(2, 0, 1)
    else:
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
            raise ValueError(
                f"tensor is {tuple(picture.shape)} {picture.dtype}; float (3, H, W) in [0, 1] is supported"
            )
        tensor, levels, grey = picture.float(), None, False
    if min(tensor.shape[-2:]) < 1:
        raise ValueError(f"image is {tensor.shape[-1]}x{tensor.shape[-2]}; it is empty")
    if levels is None and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(f"float image spans {tensor.min():.3g}..{tensor.max():.3g}; it must lie in [0, 1]")
    lr = (tensor.expand(3, -1, -1)[None] * 2 - 1).to(device, dtype)  # (1, 3, h, w)
    return Prepared(lr, grey, levels)


class Canvas:
    """A result in its final form, filled piece by piece, so that it is never held in another.

    Args:
        prepared: the input.
        scale: of the result.
        output_type: "np" (the input's depth; float for float), "pil" (8 bit), "pt" (float, (3, H, W), in [0, 1]).
    """

    def __init__(self, prepared: Prepared, scale: int, output_type: OutputType):
        self.scale, self.output_type = scale, output_type
        self.grey = prepared.grey and output_type != "pt"
        levels = {"np": prepared.levels, "pil": 255, "pt": None}[output_type]
        self.levels = levels or 1
        self.dtype = np.dtype({255: np.uint8, 65535: np.uint16, None: np.float32}[levels])
        height, width = prepared.frame.height * scale, prepared.frame.width * scale
        self.pixels = np.empty((height, width) if self.grey else (height, width, 3), self.dtype)

    @staticmethod
    def bytes_for(prepared: Prepared, scale: int) -> int:
        """What a canvas takes at the most, in bytes."""
        per_pixel = 3 * {255: 1, 65535: 2, None: 4}[prepared.levels]
        return prepared.frame.height * prepared.frame.width * scale**2 * per_pixel

    def put(self, box: Box, image: Tensor) -> None:
        """Write (3, h*scale, w*scale) in about [-1, 1], clamped to what the form can hold, where `box` (h, w) lies."""
        rows, columns = (slice(s.start * self.scale, s.stop * self.scale) for s in box.slices)
        self.pixels[rows, columns] = self.in_form(image)

    def in_form(self, image: Tensor) -> np.ndarray:
        """(3, H, W) in about [-1, 1] -> (H, W) or (H, W, 3) as the result holds it."""
        image = image.float().mul(0.5).add_(0.5).clamp_(0, 1).cpu()
        array = image.mean(0) if self.grey else image.permute(1, 2, 0)
        if self.dtype.kind == "f":
            return array.numpy()
        return array.mul(self.levels).round_().numpy().astype(self.dtype)

    def finished(self) -> Any:
        if self.output_type == "pil":
            return Image.fromarray(self.pixels)
        if self.output_type == "pt":
            return torch.from_numpy(self.pixels).permute(2, 0, 1)  # (3, H, W)
        return self.pixels
