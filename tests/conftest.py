"""What all tests share: the folder of real photographs, a small real picture, calm threads, no network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

import numpy as np
import pytest
import skimage.data
import torch

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    """The smallest machine that the tests are meant for has two cores; more threads would change the last bits."""
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder: $RETINASHIFT_SHARED, or `../shared` beside the project. Absent: a skip, in CI a failure."""
    folder = Path(os.environ.get("RETINASHIFT_SHARED") or PROJECT.parent / "shared")
    if not folder.is_dir():
        reason = f"no shared folder at {folder} (set RETINASHIFT_SHARED to the one with data/ in it)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def _retina() -> np.ndarray:
    return skimage.data.retina()[500:628, 400:528].copy()


@pytest.fixture
def retina(_retina: np.ndarray) -> np.ndarray:
    """A piece of a real retina with vessels, (128, 128, 3) uint8, CC0; each test has its own copy."""
    return _retina.copy()
