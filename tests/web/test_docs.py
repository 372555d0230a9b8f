"""docs/app.md is true: its examples are run as they stand there, but for the port."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from retinashift.imaging.figures.uncertainty import decode_map
from retinashift.imaging.files import find_provenance, read_image

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "app.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, retina):
    Image.fromarray(retina[:24, :32]).save(tmp_path / "eye.png")
    return tmp_path


def example(page, start: str) -> str:
    """The code block that begins so, with the port of the page."""
    (block,) = re.findall(rf"```\w*\n({re.escape(start)}.*?)```", TEXT, re.S)
    return block.replace("http://127.0.0.1:7860", page.address)


def test_the_example_in_curl_fetches_the_result(page, folder):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(["bash", "-ec", example(page, "FILE=$(curl")], cwd=folder, capture_output=True, text=True,
        timeout=90)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "event: complete" in done.stdout
    url = re.search(r'"url": "([^"]+)"', done.stdout)[1]
    assert url.startswith(page.address)
    subprocess.run(["curl", "-sf", "-o", "result.png", url], cwd=folder, check=True, timeout=30)
    assert read_image(folder / "result.png").pixels.shape == (96, 128, 3)


def test_the_example_in_curl_fetches_the_files_of_uncertainty(page, folder):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    code = example(page, "FILE=$(curl") + example(page, "EVENT=$(curl")
    done = subprocess.run(["bash", "-ec", code], cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    sigma, account = decode_map((folder / "eye_x4.png.uncertainty.tif").read_bytes())
    assert sigma.shape == (96, 128)
    assert account["provenance"]["ensemble"] == 8
    assert read_image(folder / "eye_x4.png.uncertainty.png").pixels.shape[1] == 128


def test_the_examples_in_python_return_the_files_of_uncertainty_where_samples_are_asked_for(page, folder):
    code = example(page, "from gradio_client import") + "print(_)\n" + example(page, "mean, sidecar, maps =")
    code += "print(sidecar['provenance']['ensemble'])\nprint(mean, *maps, sep='\\n')\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"TMPDIR": str(folder)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    none, samples, mean, numbers, picture = done.stdout.strip().splitlines()[-5:]
    assert (none, samples) == ("[]", "8")
    assert find_provenance(Path(mean).read_bytes(), mean).options["uncertainty"] == 8
    assert decode_map(Path(numbers).read_bytes())[1]["provenance"]["ensemble"] == 8
    assert read_image(picture).pixels.shape[1] == 128


def test_the_example_in_python_returns_the_image_and_what_made_it(page, folder):
    code = example(page, "from gradio_client import") + "\nprint(image)\nprint(sidecar['provenance']['checkpoint'])\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"TMPDIR": str(folder)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    image, checkpoint = done.stdout.strip().splitlines()[-2:]
    assert read_image(image).pixels.shape == (96, 128, 3)
    assert find_provenance(Path(image).read_bytes(), image).checkpoint == checkpoint
