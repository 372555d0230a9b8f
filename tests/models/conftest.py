"""The parity vectors: inputs and outputs of the official implementation, with the weights that go with them."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

DERIVED = ("relative_position_index", "attn_mask")  # entries of official state dicts that are no parameters


@dataclass(frozen=True)
class Parity:
    """The folder of vectors; its README says how everything in it was made."""

    folder: Path

    def options(self, name: str) -> dict[str, Any]:
        """The constructor arguments of a network, as the official configuration has them."""
        return json.loads((self.folder / "index.json").read_text())["configs"][name]["params"]

    def parameters(self, name: str) -> dict[str, list[int]]:
        """Names and shapes of a network's parameters, derived entries left out."""
        entries = json.loads((self.folder / "manifests" / f"{name}.json").read_text())["state_dict"]
        return {key: shape for key, shape in entries.items() if not key.endswith(DERIVED)}

    def vectors(self, name: str, prefix: str = "") -> dict[str, Tensor]:
        """The tensors of one file whose names start with the prefix, which is taken away."""
        tensors = load_file(self.folder / "vectors" / f"{name}.safetensors")
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    def weights(self, name: str, model: torch.nn.Module) -> dict[str, Tensor]:
        """Stored weights where there are some, else those that the recipe gives for the model's parameters."""
        stored = self.folder / "weights" / f"{name}.safetensors"
        checkpoint = self.folder / "weights" / f"{name}_training_ckpt.pth"
        if stored.exists():
            state = load_file(stored)
        elif checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)["state_dict"]
            state = {key.removeprefix("module._orig_mod."): value for key, value in state.items()}
        else:
            return recipe_weights(model)
        return {key: value for key, value in state.items() if not key.endswith(DERIVED)}

    @staticmethod
    def image(seed: Tensor, *shape: int) -> Tensor:
        values = np.random.RandomState(int(seed)).random_sample(math.prod(shape)) * 2.0 - 1.0
        return torch.from_numpy(values.astype(np.float32).reshape(shape))

    @staticmethod
    def recipe_weights(model: torch.nn.Module) -> dict[str, Tensor]:
        return recipe_weights(model)


def recipe_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that follow from the parameters' names alone, the same on every machine."""
    state = {}
    for name, parameter in model.named_parameters():
        uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(parameter.numel())
        values = uniform * 2.0 - 1.0
        if name.endswith("embedding.weight"):
            values = values * 2.0
        elif name.endswith("relative_position_bias_table"):
            pass
        elif parameter.dim() >= 2:
            values = values * (math.sqrt(3.0) / math.sqrt(math.prod(parameter.shape[1:])))
        else:
            values = 1.0 + 0.3 * values if name.endswith("weight") else 0.2 * values
        state[name] = torch.from_numpy(values.astype(np.float32).reshape(parameter.shape))
    return state


@pytest.fixture(scope="session")
def parity(shared: Path) -> Parity:
    return Parity(shared / "parity")
