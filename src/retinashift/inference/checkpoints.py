"""Which checkpoint a name means: one that comes with the package, a folder, or a name on the hub."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline

logger = logging.getLogger(__name__)

DEFAULT = "x4"
FORMER_NAMES = {"x4_realistic": "x4_restore"}


def shipped_names() -> list[str]:
    """The checkpoints that come with the package, sorted."""
    return sorted(entry.name for entry in (files("retinashift") / "weights").iterdir() if entry.is_dir())


def open_checkpoint(name: str = "", **kwargs: Any) -> ResShiftPipeline:
    """The pipeline of a checkpoint.

    Args:
        name: "" or "shipped" is the default one, `x4`; a name that comes with the package; else a folder or a hub name.
            A folder of that name, here, goes before one that comes along.
        kwargs: diffusers' (torch_dtype, revision, ...).

    Raises:
        CheckpointError: it cannot be found or used.
    """
    if name in FORMER_NAMES and not Path(name).exists():
        logger.warning("the checkpoint %s is now called %s", name, FORMER_NAMES[name])
        name = FORMER_NAMES[name]
    if name in ("", "shipped"):
        return ResShiftPipeline.from_shipped(DEFAULT, **kwargs)
    if name in shipped_names() and not Path(name).exists():
        return ResShiftPipeline.from_shipped(name, **kwargs)
    if "/" not in name and not Path(name).exists():
        raise CheckpointError(f"no checkpoint folder at {name}; names that come along are {', '.join(shipped_names())}")
    return ResShiftPipeline.from_pretrained(name, **kwargs)
