"""Launchers: processes that were asked for train together, or the run is refused; never one of them in silence."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders.command import in_a_fresh_process
from retinashift.training.run import Trainer, TrainingError
from retinashift.training.settings import TrainConfig

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
_PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
(_COMMAND,) = re.findall(r"^accelerate launch (.*?CONFIG)$", _PAGE, re.DOTALL | re.MULTILINE)
MANUAL = shlex.split(_COMMAND.replace("\\\n", " "))
"""The manual's command for two machines, after its name."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "denoiser" / "diffusion_pytorch_model.safetensors")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_one_process_where_several_were_asked_for_is_refused(smoke_settings, write_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # as `accelerate launch --num_processes 2` leaves them on a CPU
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(TrainingError, match="asked for several processes and started one; give it --multi_gpu"):
        Trainer(TrainConfig.load(write_settings(smoke_settings)))
    assert not (tmp_path / "run").exists()


@pytest.mark.cluster
def test_accelerate_that_starts_one_process_of_two_is_refused(smoke_settings, write_settings, tmp_path):
    command = [*LAUNCH, "--num_processes", "2", "-m", "retinashift", "train", str(write_settings(smoke_settings))]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "error: accelerate launch was asked for several processes and started one" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.cluster
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_machines_train_together_as_one_with_twice_the_accumulation(
    launcher, smoke_settings, write_settings, tmp_path
):
    settings, port, nodes = write_settings(smoke_settings), free_port(), []
    for rank in ("0", "1"):
        with_values = {"0": rank, "10.0.0.5": "127.0.0.1", "29500": port, "CONFIG": str(settings)}
        if launcher == "accelerate":
            words = [*LAUNCH, *(with_values.get(word, word) for word in MANUAL)]
        else:
            words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1",
                     "--node_rank", rank, "--master_addr", "127.0.0.1", "--master_port", port,
                     "-m", "retinashift", "train", str(settings)]  # fmt: skip
        nodes.append(subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True))
    said = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    (header,) = (line for text in said for line in text.splitlines() if " photographs; " in line)
    assert "6 photographs; cpu:0, 2 processes, fp32; 8 steps, about 1 minute" in header
    alone = ("--set", f"run.out={tmp_path / 'one'}", "--set", "optim.accumulate=2")
    assert in_a_fresh_process("train", settings, *alone, OMP_NUM_THREADS="1").returncode == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "run")
    assert all(torch.allclose(one[name], two[name], atol=1e-7, rtol=1e-5) for name in one)
