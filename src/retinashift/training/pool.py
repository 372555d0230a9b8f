"""The photographs of a run as tensors, decoded on first use and cached up to a stated size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retinashift.data.photographs import FileRef, Item

NEARLY_BLACK = 16 / 255
"""From 0 (black) to 1: darker pixels count as surround."""
BLOCK = 8
"""Side, in pixels, of the squares in which the visible part of a photograph is counted."""


def _group(name: str, balance: str) -> str:
    """The set or the folder that a photograph belongs to."""
    path = PurePosixPath(name)
    return path.name.partition("_")[0] if balance == "set" else str(path.parent)


class PhotographSet(Sequence[str]):
    """Photographs as (3, H, W) uint8 or uint16 tensors, decoded once and kept on `device` up to `cache_gib`."""

    def __init__(
        self,
        items: list[Item],
        *,
        cache_gib: float,
        device: torch.device | str = "cpu",
        balance: Literal["photograph", "set", "folder"] = "photograph",
    ):
        self.items = items
        groups: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault("" if balance == "photograph" else _group(item.hr.name, balance), []).append(index)
        self._groups = list(groups.values())
        self.device = torch.device(device)
        self._left = cache_gib * 2**30
        self._kept: dict[FileRef, Tensor] = {}
        self._seen: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self.items[index].hr.name

    def pick(self, which_set: float, which: float) -> int:
        """The index of a photograph, from two numbers in [0, 1): each as often as `balance` says."""
        group = self._groups[int(which_set * len(self._groups))]
        return group[int(which * len(group))]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._measured(index)[0]

    def has_lr(self, index: int) -> bool:
        """Whether the LR image is given."""
        return self.items[index].lr is not None

    def visible(self, index: int, top: int, left: int, side: int) -> float:
        """The share of a square that is not nearly black, to within its outermost `BLOCK` pixels."""
        rows, columns = (slice(at // BLOCK, math.ceil((at + side) / BLOCK)) for at in (top, left))
        return float(self._measured(index)[1][rows, columns].mean())

    def hr(self, index: int) -> Tensor:
        """(3, H, W) on the device."""
        return self._tensor(self.items[index].hr)

    def lr(self, index: int) -> Tensor | None:
        """(3, H/scale, W/scale) on the device, or None where LR is to be made from HR."""
        ref = self.items[index].lr
        return None if ref is None else self._tensor(ref)

    def _measured(self, index: int) -> tuple[tuple[int, int], np.ndarray]:
        """Height and width, and the visible share of squares of `BLOCK` pixels a side."""
        if index not in self._seen:
            pixels = self._tensor(self.items[index].hr)
            height, width = pixels.shape[-2:]
            bright = pixels.float().mean(0) > NEARLY_BLACK * torch.iinfo(pixels.dtype).max
            shares = F.avg_pool2d(bright.float()[None], BLOCK, ceil_mode=True)[0]
            self._seen[index] = (height, width), shares.cpu().numpy()
        return self._seen[index]

    def _tensor(self, ref: FileRef) -> Tensor:
        tensor = self._kept.get(ref)
        if tensor is None:
            tensor = torch.from_numpy(np.ascontiguousarray(ref.read().transpose(2, 0, 1))).to(self.device)
            if tensor.nbytes <= self._left:
                self._left -= tensor.nbytes
                self._kept[ref] = tensor
        return tensor
