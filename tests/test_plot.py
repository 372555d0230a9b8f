"""The plot of the README shows every method that has the score and seconds, where they lie."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "plot.py"
spec = importlib.util.spec_from_file_location("plot", PATH)
assert spec is not None
assert spec.loader is not None
plot = importlib.util.module_from_spec(spec)
sys.modules["plot"] = plot  # dataclasses look their module up
spec.loader.exec_module(plot)


def report(methods, images="ab"):
    """Methods: name to (seconds, mean)."""
    return {
        "protocol": {"photographs": len(images), "scale": 4},
        "means": {name: {"cpu_seconds": seconds} for name, (seconds, _) in methods.items()},
        "intervals": {name: {"red_dots_seen": [mean, mean - 0.1, mean + 0.1]} for name, (_, mean) in methods.items()},
        "rows": [{"image": image} for image in images],
    }


def test_points_are_the_methods_with_score_and_seconds():
    first = report({"nearest": (0.01, 0.1), "bicubic": (0.01, 0.25), "SPAN": (None, 0.7), "other": (None, 0.3)})
    second = report({"bicubic": (9.0, 0.9), "retinashift, faithful": (0.5, 0.8)})
    points = plot.read_points([first, second], "red_dots_seen", {"SPAN": 0.4})
    assert [(p.name, p.seconds, p.mean) for p in points] == [
        ("bicubic", 0.01, 0.25), ("SPAN", 0.4, 0.7), ("retinashift, faithful", 0.5, 0.8),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="different photographs"):
        plot.read_points([first, report({}, "ac")], "red_dots_seen", {})
    with pytest.raises(ValueError, match="no method has both"):
        plot.read_points([report({"x": (None, 0.3)})], "red_dots_seen", {})


def test_a_better_method_is_drawn_higher_and_a_slower_one_further_right(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(report({"bicubic": (0.02, 0.3), "retinashift, faithful": (3.0, 0.8)})))
    monkeypatch.setattr(sys, "argv", ["plot.py", str(path), "-o", str(tmp_path / "plot.png")])
    plot.main()
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (plot.WIDTH, plot.HEIGHT)
        pixels = np.asarray(picture).astype(int)

    def middle(colour):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return np.argwhere(np.abs(pixels - wanted).sum(2) < 30).mean(0)

    (ours_row, ours_column), (other_row, other_column) = middle(plot.OURS), middle(plot.OTHERS)
    assert ours_row < other_row
    assert ours_column > other_column
