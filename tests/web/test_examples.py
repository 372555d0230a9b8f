"""The manual's requests run as they stand; the page holds under load; the extra stays small."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from builders.page import upscale

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, retina):
    Image.fromarray(np.ascontiguousarray(retina[:16, :20])).save(tmp_path / "eye.png")
    return tmp_path


def example(language: str, page) -> str:
    """The first block of that language that asks the page for something."""
    text = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return next(block for block in blocks if "/api/" in block).replace("http://127.0.0.1:7860", page.address)


@pytest.mark.parametrize(("language", "program"), [
    ("sh", ["bash", "-e", "-c"]), ("python", [sys.executable, "-c"]), ("r", ["Rscript", "-e"]),
])  # fmt: skip
def test_the_requests_of_the_manual_give_the_result(page, folder, language, program):
    if shutil.which(program[0]) is None or (language == "sh" and shutil.which("curl") is None):
        pytest.skip(f"{program[0]} or curl is not installed here")
    done = subprocess.run([*program, example(language, page)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "eye_x4.png") as result:
        assert result.size == (80, 64)
    assert (folder / "eye_x4.png").read_bytes() == upscale(page, (folder / "eye.png").read_bytes())[1]


def test_users_get_their_own_results_and_the_page_stays_up_through_probes():
    found = importlib.util.spec_from_file_location("page_load", ROOT / "benchmarks" / "page.py")
    load = importlib.util.module_from_spec(found)
    found.loader.exec_module(load)
    outcome = load.attack(users=3, jobs=6, probes=200, half_open=250, passwords=40)
    assert outcome["results"] == 6
    assert [value for name, value in outcome.items() if name.startswith(("leaks", "foreign"))] == [0, 0, 0]
    assert [value for name, value in outcome.items() if name.startswith("status")] == [200, 200, 200]


def test_the_extra_adds_at_most_12_packages():
    def direct(name: str, extra: str = "") -> list[str]:
        wanted = [Requirement(text) for text in requires(name) or []]
        return [one.name.lower() for one in wanted if not one.marker or one.marker.evaluate({"extra": extra})]

    def needed(names: list[str], seen: set[str]) -> set[str]:
        for name in names:
            if name not in seen:
                seen.add(name)
                with suppress(PackageNotFoundError):  # of another platform
                    needed(direct(name), seen)
        return seen

    added = needed(direct("retinashift", "app"), set()) - needed(direct("retinashift"), set())
    assert len(added) <= 12, sorted(added)
