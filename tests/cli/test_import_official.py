"""The import command as a person meets it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from builders.command import one_line_error, retinashift
from retinashift.inference.pipeline import ResShiftPipeline


class RunsACommand:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.shared
def test_import_writes_a_checkpoint_that_info_can_load_and_prints_the_licence(shared, tmp_path):
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
    done = retinashift("import", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "S-Lab License 1.0" in done.stdout
    assert "non-commercial" in done.stdout
    assert ResShiftPipeline.from_pretrained(out).config.scale == 4
    done = retinashift("import", *arguments)
    assert done.returncode == 1
    assert done.stderr == f"error: {out} exists already; give another folder\n"


@pytest.mark.shared
@pytest.mark.parametrize("case", ["malicious", "truncated", "another network", "no autoencoder", "no release"])
def test_a_bad_file_is_one_line_and_leaves_nothing(shared, tmp_path, case):
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
    done = retinashift("import", file, *vq, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert said in one_line_error(done)
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_help_answers_without_torch():
    code = "import sys; sys.argv = ['retinashift', 'import', '--help']\nimport retinashift.cli as c\n"
    code += "try: c.main()\nexcept SystemExit as e: assert not e.code\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--vq" in done.stdout
    assert "sinsr" in done.stdout


def test_an_unknown_release_is_refused_with_the_names_that_exist(tmp_path):
    done = retinashift("import", "a.pth", "--release", "v9", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "realsr_v3" in done.stderr
