"""Which device computes and how precisely, how much memory is free, and how used memory goes back to the system."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import psutil
import torch

_GROUP_FILES = {
    1: (("memory",), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: (("", "unified"), "memory.max", "memory.current", "inactive_file"),
}
"""Of a control group, by version: where it is mounted, its limit, what is held, and of that cached files in no use."""


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the first of CUDA, MPS and CPU that is there; ValueError for what torch or this machine lacks."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is {name!r}; auto, cpu, cuda, cuda:1 or mps are allowed") from None
    if not present.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"device {name} is not on this machine; use --device auto or cpu")
    return device


def fast_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What `--precision auto` means on a device: bf16 where it has arithmetic for it, else fp32."""
    return "bf16" if has_bf16(device.type) else "fp32"


def has_bf16(kind: str) -> bool:
    """Whether a device of a kind ("cpu", "cuda", ...) multiplies bf16 by itself: emulation is slower than float32."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # on x86 this is also true of emulation
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # AMD since Zen 4, Intel since Cooper Lake
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def spare_memory(device: torch.device, budget: int | None = None) -> int:
    """Bytes that work on a device may take: of the `budget` of this process, or half of what is free; at least 0."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_allocated(device)
    else:
        free, held = _free_memory(), psutil.Process(os.getpid()).memory_info().rss
    return max(0, budget - held) if budget is not None else free // 2


def _free_memory(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Of the machine (`root` has its `proc` and `sys`), or what control groups and a Slurm job leave of it."""
    free = [int(psutil.virtual_memory().available), *_left_by_groups(root)]
    megabytes = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    limits = zip(megabytes, (1, int(environment.get("SLURM_CPUS_ON_NODE") or 1)), strict=True)
    job = sum(int(each) * times << 20 for each, times in limits if each.isdigit())  # Slurm states one of the two
    if job:  # 0 is all of the node
        free.append(job - psutil.Process(os.getpid()).memory_info().rss)
    return max(0, min(free))


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each control group of this process, and each above it, leaves of its limit; files cached in it are free.

    Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        number, controllers, path = line.split(":", 2)
        version = 1 if "memory" in controllers.split(",") else 2 if number == "0" else None
        if version is None:
            continue
        mounts, limit, used, cached = _GROUP_FILES[version]
        inside = Path(*(part for part in Path(path).parts[1:] if part != ".."))  # from a namespace, ".." lead out of it
        for mount in (root / "sys/fs/cgroup" / name for name in mounts):
            for group in (mount / inside, *(mount / above for above in inside.parents)):
                try:
                    most, held, statistics = (group / name for name in (limit, used, "memory.stat"))
                    reclaimable = re.search(rf"^{cached} (\d+)$", statistics.read_text(), re.MULTILINE)
                    yield int(most.read_text()) - int(held.read_text()) + int(reclaimable[1] if reclaimable else 0)
                except (OSError, ValueError):  # no such group in this container, or "max": no limit
                    continue


def parse_bytes(text: str) -> int:
    """ "2G", "500M" or a plain number of bytes; units are powers of 1024.

    >>> parse_bytes("2G")
    2147483648
    """
    found = re.fullmatch(r"(\d*\.?\d+) ?([KMGT]?)B?", text.strip().upper())
    size = float(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else 0
    if not 1 <= size < 2**60:
        raise ValueError(f"memory is {text!r}; a size such as 2G or 500M is needed")
    return int(size)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whichever device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # the CPU's own wording
    )


def trim_heap() -> None:
    """Freed memory goes back to the system, where the C library keeps it, as on most Linux systems."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
