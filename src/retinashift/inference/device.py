"""The one place that decides which processor computes."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the first of CUDA, Apple's MPS and CPU that is there; any other name is taken as given.

    Raises:
        ValueError: a name torch does not know, or a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}; auto, cpu, cuda, cuda:1 or mps are allowed") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"device {name} is not on this machine; use --device auto or cpu")
    return device


def spare_memory(device: torch.device, budget: int | None = None) -> int:
    """Bytes that work on a device may take beyond what is taken already, at least 0.

    Args:
        budget: bytes that this process may hold in all; None is half of what is free now.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_allocated(device)
    else:
        free, held = _free_memory(), psutil.Process(os.getpid()).memory_info().rss
    return max(0, budget - held) if budget is not None else free // 2


def _free_memory() -> int:
    """Of the machine, or of the container if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return min(free, max(0, int(most) - int(used))) if most.isdigit() else free


def parse_bytes(text: str) -> int:
    """ "2G", "500M" or a plain number of bytes; units are powers of 1024.

    >>> parse_bytes("2G")
    2147483648
    """
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    number, unit = text.strip().upper().removesuffix("B"), 0
    if number[-1:] in units:
        number, unit = number[:-1], units[number[-1]]
    try:
        size = float(number) * 1024**unit
    except ValueError:
        size = 0
    if not 1 <= size < 2**60:
        raise ValueError(f"memory is {text!r}; a size such as 2G or 500M is needed")
    return int(size)
