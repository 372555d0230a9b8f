"""The import command as a person meets it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinashift import cli
from retinashift.inference.pipeline import ResShiftPipeline


class RunsACommand:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def run_import(monkeypatch, *arguments) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of the command in this process."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    monkeypatch.setattr(sys, "argv", ["retinashift", "import", *map(str, arguments)])
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.shared
def test_import_writes_a_checkpoint_that_info_can_load_and_prints_the_licence(shared, tmp_path, monkeypatch):
    weights, out = shared / "parity" / "weights", tmp_path / "out"
    arguments = (
        weights / "unet_a.safetensors",
        "--vq",
        weights / "vq_a.safetensors",
        "--release",
        "realsr_v3",
        "-o",
        out,
    )
    code, stdout, stderr = run_import(monkeypatch, *arguments)
    assert (code, stderr) == (0, "")
    assert "S-Lab License 1.0" in stdout
    assert "non-commercial" in stdout
    assert ResShiftPipeline.from_pretrained(out).config.scale == 4
    code, _, stderr = run_import(monkeypatch, *arguments)
    assert code == 1
    assert stderr == f"error: {out} exists already; give another folder\n"


@pytest.mark.shared
@pytest.mark.parametrize("case", ["malicious", "truncated", "another network", "no autoencoder", "no release"])
def test_a_bad_file_is_one_line_and_leaves_nothing(shared, tmp_path, monkeypatch, case):
    weights, file, vq = shared / "parity" / "weights", tmp_path / "resshift_realsrx4_s4_v3.pth", []
    whole = (weights / "unet_nano_training_ckpt.pth").read_bytes()
    sentinel = tmp_path / "ran"
    if case == "malicious":
        torch.save({"state_dict": {"w": RunsACommand(f"echo > {sentinel}")}}, file)
        vq, said = ["--vq", weights / "vq_a.safetensors"], "nothing in it was run"
    elif case == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
        vq, said = ["--vq", weights / "vq_a.safetensors"], "truncated"
    elif case == "another network":
        torch.save({"conv.weight": torch.zeros(3)}, file)
        vq, said = ["--vq", weights / "vq_a.safetensors"], "a denoiser (UNetModelSwin) is expected"
    elif case == "no autoencoder":
        file.write_bytes(whole)
        said = "give it with --vq"
    else:
        file = tmp_path / "model_1.pth"
        file.write_bytes(whole)
        said = "name one of realsr_v1"
    code, _, stderr = run_import(monkeypatch, file, *vq, "-o", tmp_path / "out")
    assert code == 1
    assert stderr.startswith("error: ")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_help_answers_without_torch():
    code = "import sys; sys.argv = ['retinashift', 'import', '--help']\nimport retinashift.cli as c\n"
    code += "try: c.main()\nexcept SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--vq" in done.stdout
    assert "sinsr" in done.stdout


def test_an_unknown_release_is_refused_with_the_names_that_exist(tmp_path, monkeypatch):
    code, _, stderr = run_import(monkeypatch, Path("a.pth"), "--release", "v9", "-o", tmp_path / "out")
    assert code == 2
    assert "realsr_v3" in stderr
