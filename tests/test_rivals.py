"""Rivals get the input of the protocol; their folders are whole, new and of 8 bit. Their networks are not run here."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "rivals.py"
spec = importlib.util.spec_from_file_location("rivals", PATH)
assert spec is not None
assert spec.loader is not None
rivals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rivals)


def repeated(lr):
    return lr.repeat(4, 1).repeat(4, 2)


@pytest.fixture
def folder(tmp_path, retina):
    (tmp_path / "set" / "labels").mkdir(parents=True)
    Image.fromarray(retina[:99, :102]).save(tmp_path / "set" / "im0001.ppm")
    Image.fromarray(retina[20:]).save(tmp_path / "set" / "im0002.TIF")
    return tmp_path / "set"


def test_the_input_is_that_of_the_protocol(folder, retina):
    assert np.array_equal(
        rivals.reduce(folder / "im0001.ppm"), bicubic_pillow(crop_to_multiple(retina[:99, :102], 4), 4)
    )


def test_results_have_the_stems_and_the_cropped_size_and_are_rounded(folder, tmp_path):
    out = tmp_path / "results" / "drive" / "repeated"
    assert rivals.run(lambda lr: repeated(lr) + 0.4 / 255, rivals.photographs(folder), out) >= 0
    assert sorted(path.name for path in out.parent.rglob("*")) == ["im0001.png", "im0002.png", "repeated"]
    with Image.open(out / "im0001.png") as result:
        assert (result.mode, result.size) == ("RGB", (100, 96))
        assert np.array_equal(np.asarray(result)[::4, ::4], rivals.reduce(folder / "im0001.ppm"))


def test_a_failure_leaves_nothing(folder, tmp_path):
    calls = []

    def network(lr):
        calls.append(lr)
        return repeated(lr) if len(calls) == 1 else lr

    with pytest.raises(ValueError, match="im0002.TIF: the result is"):
        rivals.run(network, rivals.photographs(folder), tmp_path / "results" / "bad")
    assert list((tmp_path / "results").iterdir()) == []


def test_what_cannot_be_used_is_said_in_a_line(folder, tmp_path, monkeypatch):
    def stopped(*arguments):
        monkeypatch.setattr(sys, "argv", ["rivals.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            rivals.main()
        return str(stop.value.code)

    (tmp_path / "out" / "span").mkdir(parents=True)
    assert "span exists already" in stopped(folder, tmp_path / "out")
    assert "no folder" in stopped(tmp_path / "nowhere", tmp_path / "out")
    assert "no photograph" in stopped(folder / "labels", tmp_path / "out")
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    for rival in rivals.RIVALS:
        assert "pip install" in stopped(folder, tmp_path / "new", "--rival", rival)
    Image.new("L", (40, 40)).save(folder / "im0003.png")
    with pytest.raises(ValueError, match="of the kind L; 8 bit RGB"):
        rivals.reduce(folder / "im0003.png")
    Image.new("RGB", (40, 40)).save(folder / "im0001.png")
    assert "two photographs named im0001" in stopped(folder, tmp_path / "new")
