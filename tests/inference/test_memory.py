"""A device is there or refused in one line; memory is planned within what groups and jobs leave, and measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retinashift.inference import memory
from retinashift.inference.memory import (
    _free_memory,
    choose_device,
    fast_precision,
)
from retinashift.inference.record import make_record
from retinashift.inference.settings import Sampling

REAL_PROBE = memory.has_bf16  # the tests' own says no

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells which pages were written to")


def test_auto_is_a_device_that_computes():
    assert torch.ones(2, device=choose_device("auto")).sum().item() == 2


def test_a_named_device_is_taken_as_given():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "", "cuda:99", "cpu:banana"])
def test_a_device_that_is_not_there_is_refused_with_a_remedy(name):
    with pytest.raises(ValueError, match="device"):
        choose_device(name)


def control_groups(root: Path, lines: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": lines, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_1(group: str, limit: str, used: str) -> dict[str, str]:
    stat = "cache 9\ninactive_file 5\ntotal_inactive_file 100\n"
    names = ("memory.limit_in_bytes", limit), ("memory.usage_in_bytes", used), ("memory.stat", stat)
    return {f"sys/fs/cgroup/memory{group}/{name}": text for name, text in names}


def version_2(group: str, limit: str, used: str) -> dict[str, str]:
    names = ("memory.max", limit), ("memory.current", used), ("memory.stat", "anon 9\ninactive_file 100\n")
    return {f"sys/fs/cgroup{group}/{name}": text for name, text in names}


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("0::/\n", version_2("", "5000", "1100")),  # a container
        ("0::/job/step\n", version_2("/job/step", "max", "7") | version_2("/job", "5000", "1100")),
        ("0::/job/step\n", version_2("/job/step", "5000", "1100") | version_2("/job", "9000", "1100")),
        ("0::/../../job\n", version_2("/job", "5000", "1100")),
        ("3:cpu,memory:/job/step\n0::/\n", version_1("/job/step", str(2**63), "7") | version_1("/job", "5000", "1100")),
        ("4:memory:/docker/1f\n", version_1("", "5000", "1100")),  # its own group lies at the mount
        ("4:memory:/\n0::/job\n", version_2("/unified/job", "5000", "1100")),
    ],
)
def test_free_memory_is_bounded_by_every_control_group_up_the_tree(tmp_path, lines, files):
    assert _free_memory(control_groups(tmp_path, lines, files), {}) == 4000  # 100 of what is used are cached files


def test_free_memory_is_bounded_by_the_job_of_slurm(tmp_path):
    most = _free_memory(tmp_path, {})
    for bounded in ({"SLURM_MEM_PER_NODE": "1"}, {"SLURM_MEM_PER_CPU": "1", "SLURM_CPUS_ON_NODE": "4"}):
        assert _free_memory(tmp_path, bounded) == 0  # this process holds more
    large = {"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "2"}
    assert 0 < _free_memory(tmp_path, large) < 2**32
    for unbounded in ({"SLURM_MEM_PER_NODE": "0"}, {"SLURM_MEM_PER_NODE": ""}, {"SLURM_MEM_PER_NODE": str(2**40)}):
        assert _free_memory(tmp_path, unbounded) >= 0.5 * most


@pytest.mark.parametrize(
    ("machine", "probes", "expected"),
    [
        ("x86_64", {"_is_avx512_bf16_supported": True}, True),
        ("x86_64", {"_is_amx_tile_supported": True}, True),
        ("x86_64", {}, False),  # AVX512 without BF16 emulates it
        ("aarch64", {"_is_amx_tile_supported": True}, False),
        ("arm64", {"arm": True}, True),
    ],
)
def test_a_processor_multiplies_bf16_where_it_has_an_instruction_for_it(monkeypatch, machine, probes, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda probe=probe: probes.get(probe, False), raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: machine == "x86_64" or "arm" in probes)
    assert REAL_PROBE("cpu") is expected
    assert not REAL_PROBE("mps")


def test_the_precision_recorded_is_the_one_used(monkeypatch, small_pipeline):
    seen, real = [], torch.nn.functional.conv2d

    def conv2d(*given, **more):
        made = real(*given, **more)
        seen.append("bf16" if made.dtype == torch.bfloat16 else "fp32")
        return made

    monkeypatch.setattr("retinashift.models.light_net.F.conv2d", conv2d)
    lr = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    for native in (False, True):
        monkeypatch.setattr(memory, "has_bf16", lambda kind, native=native: native)
        for asked in ("auto", "bf16", "fp32"):
            seen.clear()
            small_pipeline(lr, precision=asked)
            recorded = make_record(small_pipeline, Sampling(precision=asked), 0).options["precision"]
            assert set(seen) == {recorded} == {asked if asked != "auto" else fast_precision(torch.device("cpu"))}
    small_pipeline.codec = object()  # a learned one
    assert small_pipeline.used_precision("auto") == "fp32"


PEAK = """
import pathlib, re, sys
import numpy as np, torch
from retinashift.inference import chain
from retinashift.inference.pipeline import ResShiftPipeline

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) << 10

def watched(size, net, memory, steps=1):
    needed.append(plan(size, net, memory, steps)[1])
    return plan(size, net, memory, steps)

torch.set_num_threads(1)
width, height, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
picture = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
pipeline, needed, plan = ResShiftPipeline.from_shipped(), [], chain.plan_bands
chain.plan_bands = watched
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = status("VmRSS")
pipeline(picture, mode=mode, memory=1 << 20, precision="fp32")
print((status("VmHWM") - before - 16 * picture.size) / needed[0])
"""


@linux
@pytest.mark.parametrize(("width", "height", "mode"), [(640, 96, "faithful"), (304, 112, "realistic")])
def test_a_process_holds_at_its_peak_what_the_plan_of_the_thinnest_bands_says(width, height, mode):
    """To 20 %, beyond what it held before and what the result takes. The median, as the heap varies."""
    command = [sys.executable, "-c", PEAK, str(width), str(height), mode]
    done = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    assert float(np.median([float(found) for found in done])) == pytest.approx(1, abs=0.2)
