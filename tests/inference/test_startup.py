"""The start of a command that samples."""

from __future__ import annotations

import subprocess
import sys

import torch

from retinashift.inference import NOT_NEEDED, _Compiler

OPEN = """
import sys
from retinashift.cli.shared import open_pipeline
open_pipeline("", "cpu")
print(*(name.partition(".")[0] for name, module in sys.modules.items() if module is not None))
print(type(sys.modules["torch._dynamo"]).__name__)
"""


def test_a_command_that_samples_loads_neither_transformers_nor_a_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    loaded, compiler = done.stdout.splitlines()
    # scipy's ndimage finds the field of view
    assert not (set(NOT_NEEDED) - {"scipy"} | {"sympy", "skimage", "pandas"}) & set(loaded.split())
    assert compiler == "_Compiler"


def test_the_compiler_is_there_for_who_asks() -> None:
    assert _Compiler("torch._dynamo").config is torch._dynamo.config


def test_without_a_compiler_nothing_is_compiled() -> None:
    stand_in = _Compiler("torch._dynamo")
    assert not isinstance(torch.nn.Identity(), stand_in.eval_frame.OptimizedModule)
    assert stand_in.disable(len) is len
    assert stand_in.disable(reason="hooks")(len) is len
    assert stand_in.allow_in_graph(int) is int
