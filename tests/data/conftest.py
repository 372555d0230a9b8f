"""Two folders of small pictures that differ."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photographs(tmp_path):
    """A folder with six pictures, eye0.png to eye5.png."""
    return drawn(tmp_path / "photographs", range(6))


@pytest.fixture
def held_out(tmp_path):
    """A folder with two others."""
    return drawn(tmp_path / "others", (6, 7))


def drawn(folder, seeds):
    folder.mkdir()
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"eye{seed}.png")
    return folder
