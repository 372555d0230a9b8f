"""Small photographs with structure, and settings that train in seconds."""

import numpy as np
import pytest
from PIL import Image, ImageDraw


def draw_fundus(seed: int, side: int = 96) -> Image.Image:
    """A reddish disc with dark branching lines: enough of a retina to learn from."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, side - 3, side - 3), fill=(190, 90, 40))
    for _ in range(14):
        points = np.cumsum(rng.normal(0, side / 9, (7, 2)), axis=0) + side / 2
        draw.line([tuple(p) for p in points], fill=(120, 35, 20), width=int(rng.integers(1, 4)))
    return image


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder with six HR photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(6):
        draw_fundus(seed).save(folder / f"eye{seed}.png")
    return folder


@pytest.fixture
def smoke_settings(photographs, tmp_path):
    """A mapping of settings for a run of seconds, to be written as YAML or changed first."""
    return {
        "data": {"path": str(photographs)},
        "crop": {"size": 32},
        "model": {"kind": "light", "options": {"width": 8, "depth": 1, "time_width": 16}},
        "optim": {"batch_size": 2, "lr": 2e-3, "warmup_steps": 2, "ema": 0.9, "clip": 1.0},
        "run": {"out": str(tmp_path / "run"), "steps": 8, "log_every": 1, "save_every": 4, "validate_every": 4},
    }


@pytest.fixture
def write_settings(tmp_path):
    import yaml

    def write(mapping, name="settings.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(mapping))
        return path

    return write
