"""A small share of `benchmarks/fuzz.py`: mutated files of every format give our own errors, or a picture."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "fuzz.py"
spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_mutated_files_give_our_own_errors_or_a_picture(kind):
    count = {"dcm-jls": 50, "heic": 15}.get(kind, 200)  # each file of these is decoded in a process of its own
    text, findings = fuzz.run(kind, count)
    assert findings == []
    assert " 0 refusals" not in text
