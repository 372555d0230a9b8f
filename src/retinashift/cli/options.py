"""What the commands share: options, opening a checkpoint, and outputs that are refused first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from retinashift.inference import import_diffusers

if TYPE_CHECKING:
    from retinashift.inference.pipeline import ResShiftPipeline

LARGEST_SEED = 2**63 - 1
"""What a `torch.Generator` takes on every device."""

Checkpoint = Annotated[
    str, Option("--checkpoint", "-c", help="Checkpoint folder, bundled name (see info) or hf:owner/name; default: x4.")
]
Device = Annotated[str, Option(help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.")]
Limit = Annotated[int, Option(min=0, help="Use the first N photographs; 0 uses all.")]
Json = Annotated[bool, Option("--json", help="Print lines of JSON instead.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace output files that exist.")]
Quiet = Annotated[bool, Option("--quiet", help="Print warnings, failures and final tables only.")]
Seed = Annotated[int, Option(min=0, max=LARGEST_SEED, help="Seed of samples; the default mode draws none.")]
Steps = Annotated[int, Option(min=0, help="Network calls per sample; 0 uses the checkpoint's default.")]


def open_pipeline(checkpoint: str, device: str) -> ResShiftPipeline:
    """The pipeline of a checkpoint, as `open_checkpoint` takes it, on a device."""
    import_diffusers()
    from retinashift.inference.memory import choose_device
    from retinashift.inference.pipeline import open_checkpoint

    chosen = choose_device(device)
    return open_checkpoint(checkpoint).to(chosen)


def check_outputs(*paths: Path | None, overwrite: bool, suffix: str = "") -> None:
    """Refuse files that could not be written at the end of a command, before its work begins; None is none.

    OSError where one exists or its folder does not; ValueError for an address, a folder, one twice, another suffix.
    """
    from retinashift.batch.places import check_local

    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        check_local(path, "an output is a local file")
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it")
        if path.absolute() in (other.absolute() for other in given[:number]):
            raise ValueError(f"{path} is given for two files; give each its own name")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; give --overwrite, or another name")
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder {path.absolute().parent} does not exist; make it, or name another")
        if not path.name.lower().endswith(suffix):
            raise ValueError(f"{path} must end in {suffix}; give another name")
