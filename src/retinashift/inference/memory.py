"""How much memory a picture may take, and how large its tiles may be for it."""

from __future__ import annotations

import re

import psutil
import torch

SHARE = 0.5
"""Of the memory that is free, what is taken if nobody says otherwise: other programs live here, too."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of "2G", "800M", "1.5 GiB" or a plain number; units are binary.

    Raises:
        ValueError: anything else.

    >>> parse_memory("2G"), parse_memory("0.5 GiB")
    (2147483648, 536870912)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ValueError(f"memory is {text!r}; a size such as 2G or 800M is expected")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def free_for_tiles(device: torch.device, memory: int | None, results: int) -> int:
    """Bytes that tiles may take beside what the process holds already.

    Args:
        device: where tiles are computed.
        memory: the most that the process may hold at its peak (on a GPU: the most of the GPU), or None: half of what
            is free.
        results: bytes of the finished picture, which is kept in main memory.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free * 0.9) if memory is None else min(memory - torch.cuda.memory_allocated(device), free)
    if memory is None:
        return int((psutil.virtual_memory().available - results) * SHARE)
    return memory - psutil.Process().memory_info().rss - results
