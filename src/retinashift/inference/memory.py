"""Memory that a part of the work no longer needs goes back to the system, so that the next part finds it free.

Weights that were loaded from safetensors are the file itself, mapped into memory: a page of it counts as held once it
was read, and can be dropped as long as nobody wrote to it; the next use finds it in the system's cache of files. This
is done on Linux, where the system tells which pages were written to. Elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from pathlib import Path

from torch import nn

_MAPS = Path("/proc/self/smaps")
_DROP = 4  # MADV_DONTNEED of Linux


def trim_heap() -> None:
    """Freed memory goes back to the system, where the C library is one that keeps it: that of most Linux systems."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_clean_pages(part: nn.Module) -> int:
    """Drop the pages of weights that are still those of their file, whose values stay. Returns the bytes of these.

    Weights elsewhere (on a GPU, converted, trained) and a mapping of which a single page was written to are left alone.
    """
    weights = [parameter for parameter in part.parameters() if parameter.device.type == "cpu" and parameter.numel()]
    if not weights or not _MAPS.exists():
        return 0
    clean = _unwritten(_MAPS.read_text())
    starts, released = [start for start, _ in clean], 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for weight in weights:
        size = weight.numel() * weight.element_size()
        first, last = weight.data_ptr(), weight.data_ptr() + size
        number = bisect_right(starts, first) - 1
        if number >= 0 and last <= clean[number][1]:
            page = first // mmap.PAGESIZE * mmap.PAGESIZE
            if advise(page, last - page, _DROP) == 0:
                released += size
    return released


def _unwritten(maps: str) -> list[tuple[int, int]]:
    """(first address, beyond the last) of private mappings of files that hold no page of their own, in order."""
    found: list[tuple[int, int]] = []
    here: tuple[int, int] | None = None
    own = 0
    for line in [*maps.splitlines(), "0-0 ---p 0 0:0 0"]:
        name, *values = line.split()
        if not name.endswith(":"):  # the head of the next mapping: addresses, rights, offset, device, inode, path
            if here is not None and own == 0:
                found.append(here)
            start, end = (int(address, 16) for address in name.split("-"))
            here, own = ((start, end) if values[0].endswith("p") and values[3] != "0" else None), 0
        elif name in ("Anonymous:", "Swap:"):
            own += int(values[0])
    return found
