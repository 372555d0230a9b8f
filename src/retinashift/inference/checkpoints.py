"""Which checkpoint a name means."""

import logging
from pathlib import Path
from typing import Any

from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline, shipped_names

logger = logging.getLogger(__name__)

DEFAULT = "x4"
FORMER_NAMES = {"x4_realistic": "x4_restore"}
HUB = "hf:"
"""Prefix of a name on the hub; a folder that is missing is never looked up there."""


def open_checkpoint(name: str = "", **kwargs: Any) -> ResShiftPipeline:
    """The pipeline of a checkpoint.

    Args:
        name: a folder, which goes before a bundled checkpoint of that name; a bundled checkpoint, "" or "shipped" for
            the default `x4`; or hf:owner/name, which is downloaded from the Hugging Face hub.
        kwargs: diffusers' (torch_dtype, revision, ...).

    Raises:
        CheckpointError: it cannot be found or used.
    """
    if name.startswith(HUB):
        return ResShiftPipeline.from_pretrained(name.removeprefix(HUB), **kwargs)
    if name in ("", "shipped"):
        return ResShiftPipeline.from_shipped(DEFAULT, **kwargs)
    if name in FORMER_NAMES and not Path(name).exists():
        logger.warning("the checkpoint %s is now called %s", name, FORMER_NAMES[name])
        name = FORMER_NAMES[name]
    if Path(name).expanduser().exists():
        return ResShiftPipeline.from_pretrained(name, **kwargs)
    if name in shipped_names():
        return ResShiftPipeline.from_shipped(name, **kwargs)
    bundled = ", ".join(shipped_names())
    raise CheckpointError(
        f"no checkpoint folder at {name}; give a folder, a bundled name ({bundled}) or {HUB}owner/name"
    )
