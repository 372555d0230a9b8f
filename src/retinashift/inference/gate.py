"""The gate: what a checkpoint folder must be before anything in it is loaded, and its weights before they are used."""

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from retinashift.imaging.failures import one_line

SHOWN = 4  # names of a long list in an error
FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors names them
# A checkpoint names its classes; only these are loaded, whatever the file says.
ALLOWED_COMPONENTS = {
    "denoiser": (["retinashift.models.light_net", "LightNet"], ["retinashift.models.swin_unet", "SwinUNet"]),
    "scheduler": (["retinashift.diffusion.scheduler", "ResShiftScheduler"],),
    "codec": ([None, None], ["diffusers", "VQModel"], ["retinashift.models.vq", "VQCodec"]),
    "uncertainty_head": ([None, None], ["retinashift.models.uncertainty_head", "UncertaintyHead"]),
}
NETWORKS = ("denoiser", "codec", "uncertainty_head")  # have weights


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used, explained in one line."""


def check_folder(folder: Path, variant: str | None = None) -> None:
    """CheckpointError unless the folder names allowed classes and holds exactly the tensors that they have.

    A variant of the weights is named as diffusers does: `diffusion_pytorch_model.<variant>.safetensors`.
    """
    index = _read_index(folder)
    for part in NETWORKS:
        module, name = index.get(part) or (None, None)
        if module and name:
            _check_tensors(folder / part, getattr(import_module(module), name), f".{variant}" if variant else "")


def check_finite(place: Path, network: nn.Module) -> None:
    """CheckpointError if a network loaded from a folder has weights that are not finite; it names them."""
    weights = network.state_dict().items()
    if broken := [name for name, w in weights if w.is_floating_point() and not torch.isfinite(w).all()]:
        raise CheckpointError(f"{place} holds weights that are not finite: {listed(broken)}")


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint folder: it has no model_index.json") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{folder}/model_index.json is not JSON") from None
    if not isinstance(index, dict) or index.get("_class_name") != "ResShiftPipeline":
        raise CheckpointError(f"{folder} is not a RetinaShift checkpoint (its pipeline class is not ResShiftPipeline)")
    for name, value in index.items():
        if isinstance(value, list) and value not in ALLOWED_COMPONENTS.get(name, ()):
            raise CheckpointError(f"{folder} names {value} as its {name}, which is not allowed")
    for name in ("denoiser", "scheduler"):
        if name not in index or not (folder / name).is_dir():
            raise CheckpointError(f"{folder} lacks its {name}: in model_index.json, or the folder")
    return index


def _check_tensors(folder: Path, kind: Any, variant: str) -> None:
    """CheckpointError unless the folder's files hold the tensors of the class that its config describes, as floats."""
    found = _tensors_in(folder, variant)
    try:
        config = {key: value for key, value in kind.load_config(folder).items() if not key.startswith("_")}
        with torch.device("meta"):  # names and shapes only
            expected = {name: list(tensor.shape) for name, tensor in kind(**config).state_dict().items()}
    except Exception as error:  # a config can make a constructor raise almost anything
        raise CheckpointError(f"{folder}/config.json describes no {kind.__name__}: {shortened(error)}") from error
    if wrong := misfits(found, expected):
        raise CheckpointError(f"the tensors in {folder} do not fit its config.json; {wrong}")


def misfits(found: Mapping[str, tuple[list[int], bool]], expected: Mapping[str, list[int]]) -> str:
    """What is wrong with tensors, given their shapes and whether they are floats; "" for nothing."""
    both = {name: (shape, expected[name]) for name, (shape, _) in found.items() if name in expected}
    complaints = {
        "missing": expected.keys() - found.keys(),
        "unexpected": found.keys() - expected.keys(),
        "not floating point": [name for name, (_, floats) in found.items() if not floats],
        "of another shape": [f"{name} {own} instead of {other}" for name, (own, other) in both.items() if own != other],
    }
    return "; ".join(f"{what}: {listed(names)}" for what, names in complaints.items() if names)


def _tensors_in(folder: Path, variant: str) -> dict[str, tuple[list[int], bool]]:
    """Shape of every tensor in the weight files of a component, and whether it is of floats; only headers are read."""
    found: dict[str, tuple[list[int], bool]] = {}
    files = sorted(folder.glob(f"diffusion_pytorch_model{variant}*.safetensors"))
    files = [file for file in files if variant or file.name.count(".") == 1]  # not those of other variants
    if not files:
        raise CheckpointError(f"{folder} lacks diffusion_pytorch_model{variant}.safetensors")
    for file in files:
        try:
            with safe_open(file, framework="pt") as contents:
                for name in contents.keys():
                    tensor = contents.get_slice(name)
                    found[name] = tensor.get_shape(), tensor.get_dtype() in FLOATS
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read: {shortened(error)}") from error
    return found


def listed(names: Iterable[str]) -> str:
    """The first few names, and the number of the others."""
    first, *more = sorted(names)
    return ", ".join([first, *more[: SHOWN - 1]]) + (f" and {len(more) + 1 - SHOWN} more" if len(more) >= SHOWN else "")


def shortened(error: BaseException) -> str:
    """An error of another library in one line of at most 300 characters."""
    return one_line(str(error))[:300]
