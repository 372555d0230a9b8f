"""What all tests share: real photographs, the parity vectors and their table, calm threads, no network."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for commands that tests start, too: the cores belong to the processes

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file
from torch import Tensor

from builders.shared import shared_folder

collect_ignore = ["builders"]  # no test lies there, and doctest would import each module once more


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The same number of threads on every machine: it changes the last bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_precision() -> Any:
    """`--precision auto` means float32 on every machine; `test_memory.py` has what it means elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinashift.inference.memory.has_bf16", lambda kind: False)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the shared folder carry its marker, so `-m "not shared"` leaves them out."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    return shared_folder()


@pytest.fixture(scope="session")
def _retina() -> np.ndarray:
    return skimage.data.retina()[500:628, 400:528].copy()


@pytest.fixture
def retina(_retina: np.ndarray) -> np.ndarray:
    """A piece of a real retina with vessels, (128, 128, 3) uint8, CC0; each test has its own copy."""
    return _retina.copy()


@pytest.fixture
def small_pipeline() -> Any:
    """A checkpoint of one block whose weights are random, so that its samples differ."""
    from builders.pipelines import light_pipeline

    return light_pipeline(std=0.05)


@pytest.fixture(scope="session")
def tiny_pipeline() -> Any:
    """Makes a pipeline of two blocks; untrained ones predict nothing, as the layers that start at zero leave it."""
    from builders.pipelines import light_pipeline

    return lambda *, trained=True, head=False: light_pipeline(depth=2, std=0.1 if trained else None, head=head)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an untrained pipeline, which enlarges bicubically; for reading only."""
    from builders.pipelines import light_pipeline

    folder = tmp_path_factory.mktemp("checkpoint")
    light_pipeline().save_pretrained(folder)
    return folder


DERIVED = ("relative_position_index", "attn_mask")  # entries of official state dicts that are no parameters


@dataclass(frozen=True)
class Compared:
    """One tensor of the vectors beside ours."""

    file: str
    name: str
    error: float
    allowed: float


COMPARED: list[Compared] = []  # over the whole run, for the table at its end


@dataclass(frozen=True)
class Parity:
    """The vectors: inputs and outputs of the official implementation. Their README says how each was made."""

    folder: Path

    def check(self, file: str, name: str, found: Tensor, atol: float, *, relative: bool = False) -> None:
        """`found` is the tensor of that name to within `atol`, or `atol` times its largest value if `relative`."""
        expected = load_file(self.folder / "vectors" / f"{file}.safetensors")[name]
        assert found.shape == expected.shape, f"{name}: {tuple(found.shape)} instead of {tuple(expected.shape)}"
        error = float((found.detach().double() - expected.double()).abs().max())
        error /= float(expected.double().abs().max()) if relative else 1
        COMPARED.append(Compared(file, name, error, atol))
        assert error <= atol, f"{file}, {name}: differs by {error:.3g}, {atol:g} is allowed"

    def options(self, name: str) -> dict[str, Any]:
        """The constructor arguments of a network, but for those of which `SwinUNet` knows one value only."""
        options = json.loads((self.folder / "index.json").read_text())["configs"][name]["params"]
        return {key: value for key, value in options.items() if key not in ("dims", "use_fp16", "cond_lq", "cond_mask")}

    def facts(self) -> dict[str, Any]:
        """Counts and settings that go with the vectors."""
        return json.loads((self.folder / "index.json").read_text())["facts"]

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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its comparisons over."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["compared"] = [astuple(compared) for compared in COMPARED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    COMPARED.extend(Compared(*values) for values in getattr(node, "workeroutput", {}).get("compared", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How far each vector file is from ours: its worst tensor, measured by what is allowed to it."""
    if not COMPARED:
        return
    terminalreporter.section("parity: worst difference in each vector file")
    terminalreporter.write_line(f"{'file':16}{'tensors':>8}{'worst':>10}{'allowed':>10}  where")
    for file in sorted({c.file for c in COMPARED}):
        mine = [c for c in COMPARED if c.file == file]
        worst = max(mine, key=lambda c: c.error / c.allowed if c.allowed else c.error)
        count = len({c.name for c in mine})
        terminalreporter.write_line(f"{file:16}{count:8}{worst.error:10.1e}{worst.allowed:10.0e}  {worst.name}")
