"""Reading official ResShift files without trusting them: tensors by name, and nothing else.

A published file is either the bare state dict of averaged weights or a training checkpoint with a `state_dict` inside;
names may carry the prefixes of DistributedDataParallel and torch.compile.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from retinashift.inference.gate import listed, misfits

PREFIXES = re.compile(r"(module\.|_orig_mod\.)*")
DERIVED = ("relative_position_index", "attn_mask")  # computed from the sizes of the network, not learnt


class OfficialError(ValueError):
    """An official file that cannot be used, explained in one line."""


@dataclass(frozen=True)
class OfficialFile:
    """The learnt tensors of an official file, under official names, and the entries that follow from its sizes."""

    parameters: dict[str, Tensor]
    derived: dict[str, Tensor]


def read_official(path: str | Path) -> OfficialFile:
    """Read a .safetensors file, or any other as PyTorch's with `weights_only=True`, once and on the CPU.

    Raises:
        OfficialError: the file cannot be read, holds anything but tensors by name, or a weight that is not finite.
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    contents = _load_tensors(path)
    if isinstance(contents, Mapping) and "state_dict" in contents:
        contents = contents["state_dict"]
    if not isinstance(contents, Mapping):
        raise OfficialError(f"{path} holds a {type(contents).__name__}; a dict of tensors by name is expected")
    if not contents:
        raise OfficialError(f"{path} holds no tensors")
    file = OfficialFile({}, {})
    for name, tensor in contents.items():
        plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not (plain and isinstance(name, str) and name.isprintable()):
            kind = type(tensor).__name__ if plain or not isinstance(tensor, Tensor) else "a tensor without plain values"
            raise OfficialError(f"{path} holds {kind} under {str(name)[:60]!r}; only tensors by name are expected")
        bare = PREFIXES.sub("", name, count=1)
        part = file.derived if bare.endswith(DERIVED) else file.parameters
        if bare in part:
            raise OfficialError(f"{path} holds {bare} twice, under different prefixes")
        part[bare] = tensor
    if broken := [n for n, w in file.parameters.items() if w.is_floating_point() and not w.float().isfinite().all()]:
        raise OfficialError(f"{path} holds values that are not finite: {listed(broken)}; get the file again")
    return file


def _load_tensors(path: Path) -> Any:
    """One attempt: a file that the restricted reader refuses is not tried with another one."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch compares no checksums
                if damaged := archive.testzip():
                    raise pickle.UnpicklingError(f"the checksum of {damaged} is wrong")
        with warnings.catch_warnings(record=True) as remarks:  # of a file that is refused, one line suffices
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise OfficialError(
            f"{path} is refused: it is damaged, or holds objects other than tensors; nothing in it was run"
        ) from error
    except Exception as error:  # a damaged file makes the two readers raise almost anything
        raise OfficialError(f"{path} cannot be read as a file of weights; it may be truncated") from error
    for remark in remarks:
        warnings.warn_explicit(remark.message, remark.category, remark.filename, remark.lineno)
    return contents


def shape_of(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the architecture follows from; OfficialError if it is missing or not as expected."""
    shape = tuple(state[name].shape) if name in state else None
    if shape is None or len(shape) != dimensions or 0 in shape:
        found = "is missing" if shape is None else f"has the shape {shape}"
        raise OfficialError(f"{name} {found}; the architecture cannot be determined without it")
    return shape


def check_names(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], network: str) -> None:
    """OfficialError unless both have the same names, with the same shapes, and all found are floats."""
    shapes = {name: (list(tensor.shape), tensor.is_floating_point()) for name, tensor in found.items()}
    if wrong := misfits(shapes, {name: list(tensor.shape) for name, tensor in expected.items()}):
        raise OfficialError(f"the weights do not fit the {network} that their sizes describe; {wrong}")
