"""The wheel: built twice it has the same bytes, and it holds the package and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SOURCE = PROJECT / "src" / "retinashift"
SUFFIXES = {".py", ".typed", ".md", ".json", ".safetensors", ".js", ".css", ".html", ".svg", ".png", ".webp"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    """Two wheels, built from copies of the sources in two places, one of them with caches and strangers around."""
    pytest.importorskip("hatchling", reason="building the wheel needs the extra [dev]")
    built = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
            shutil.copy(PROJECT / file, folder)
        if built:
            for stranger in ("runs/a.png", "tests/test_x.py", "src/retinashift/__pycache__/x.pyc", ".env"):
                (folder / stranger).parent.mkdir(parents=True, exist_ok=True)
                (folder / stranger).write_bytes(b"x")
            for file in folder.rglob("*"):
                os.utime(file, (10**9, 10**9))
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"], cwd=folder, check=True,
            capture_output=True,
        )  # fmt: skip
        built += (folder / "dist").glob("*.whl")
    return built


def test_two_builds_have_the_same_bytes(wheels):
    first, second = wheels
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheels):
    found = set(zipfile.ZipFile(wheels[1]).namelist())
    sources = {
        f"retinashift/{file.relative_to(SOURCE).as_posix()}"
        for file in SOURCE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    rest = {re.sub(r"^retinashift-[\d.]+\.dist-info/", "", name) for name in found - sources}
    assert sources <= found
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
    assert {Path(name).suffix for name in sources} <= SUFFIXES


def test_the_wheel_states_floors_and_carries_weights_and_types(wheels):
    with zipfile.ZipFile(wheels[0]) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        text = wheel.read(metadata).decode()
        assert "retinashift/py.typed" in wheel.namelist()
        assert "retinashift/weights/x4/denoiser/diffusion_pytorch_model.safetensors" in wheel.namelist()
    assert "Requires-Dist: torch>=2.10" in text
    assert "License-Expression: Apache-2.0" in text
