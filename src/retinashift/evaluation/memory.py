"""Peak memory of a piece of work, where the system tells it."""

from __future__ import annotations

import gc
from pathlib import Path
from types import TracebackType

import torch

from retinashift.inference.memory import trim_heap

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context that measures: `mib` is the GPU's allocations where there is one, else what Linux saw this process take.

    The latter is what came on top of what the process held when it had given back what it did not need. Elsewhere, and
    where the system does not let the mark be reset, `mib` is None.
    """

    mib: float | None = None

    def __enter__(self) -> PeakMemory:
        self._start = None
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return self
        try:
            gc.collect()
            trim_heap()  # else what is kept for later would hide the peak
            _RESET.write_text("5")  # sets the high-water mark to what is held now
            self._start = _field("VmRSS")
        except OSError:
            pass
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if torch.cuda.is_available():
            self.mib = torch.cuda.max_memory_allocated() / 2**20
        elif self._start is not None:
            self.mib = max(0.0, _field("VmHWM") - self._start) / 1024


def _field(name: str) -> float:
    """A line of the process status, in KiB."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1])
