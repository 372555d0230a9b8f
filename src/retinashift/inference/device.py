"""The one place that decides which processor computes."""

from __future__ import annotations

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
