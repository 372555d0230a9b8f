"""A state on disk is the former one or the new one, never half of either."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from retinashift.imaging.failures import explain
from retinashift.training.settings import ConfigError
from retinashift.training.state import (
    Position,
    State,
    load_state,
    lock_folder,
    restore_folder,
    save_state,
    write_folder,
)


def state(step: int) -> State:
    weights = {"weight": torch.full((3,), float(step))}
    return State(
        Position(step, step * 2.0, 30.0), weights, weights, {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}
    )


def test_what_is_saved_is_what_is_loaded(tmp_path):
    save_state(tmp_path, state(4), keep=2)
    loaded = load_state(tmp_path)
    assert loaded.position == Position(4, 8.0, 30.0)
    assert torch.equal(loaded.model["weight"], torch.full((3,), 4.0))


def test_only_the_newest_states_are_kept(tmp_path):
    for step in (2, 4, 6, 8):
        save_state(tmp_path, state(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["00000006", "00000008"]


def test_no_state_is_none(tmp_path):
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fail_at", range(1, 9))
def test_a_crash_at_any_point_of_saving_leaves_a_whole_state(tmp_path, monkeypatch, call, fail_at):
    save_state(tmp_path, state(4), keep=1)
    real, count = getattr(os, call), 0

    def crash(*arguments):
        nonlocal count
        count += 1
        if count == fail_at:
            raise OSError("disk full")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        try:
            save_state(tmp_path, state(8), keep=1)
        except OSError:
            pass
    step = load_state(tmp_path).position.step
    assert step in (4, 8)
    save_state(tmp_path, state(12), keep=1)
    assert load_state(tmp_path).position.step == 12


def test_a_damaged_state_is_told_in_one_line(tmp_path):
    save_state(tmp_path, state(4), keep=1)
    (tmp_path / "00000004" / "ema.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="cannot be resumed from"):
        load_state(tmp_path)


def test_a_state_with_code_in_it_is_refused_and_nothing_runs(tmp_path):
    sentinel = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {sentinel}",)

    save_state(tmp_path, state(4), keep=1)
    torch.save({"optimizer": Evil()}, tmp_path / "00000004" / "optimizer.pt")
    with pytest.raises(ConfigError):
        load_state(tmp_path)
    assert not sentinel.exists()


def test_a_kill_between_the_two_moves_of_a_folder_loses_neither(tmp_path, monkeypatch):
    target = tmp_path / "checkpoint"
    write_folder(target, lambda folder: (folder / "weights").write_text("old"))
    real, moves = os.replace, []

    def killed(source, destination):
        moves.append(destination)
        if len(moves) == 2:
            raise KeyboardInterrupt
        real(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(target, lambda folder: (folder / "weights").write_text("new"))
    assert not target.exists()
    restore_folder(target)
    assert (target / "weights").read_text() == "old"
    write_folder(target, lambda folder: (folder / "weights").write_text("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_leaves_the_former_state_and_nothing_else(tmp_path, monkeypatch):
    """Whatever the writers raise: safetensors and torch have exceptions of their own for a full disk."""
    save_state(tmp_path, state(4), keep=1)

    def full(kind, where):
        def write(*_arguments, **_options):
            raise kind("I/O error: No space left on device (os error 28)")

        with monkeypatch.context() as patch:
            patch.setattr(f"retinashift.training.state.{where}", write)
            with pytest.raises(kind) as caught:
                save_state(tmp_path, state(8), keep=1)
        assert not explain(caught.value).internal

    for kind, where in ((SafetensorError, "save_file"), (RuntimeError, "torch.save"), (OSError, "flush_to_disk")):
        full(kind, where)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "latest"]
        assert load_state(tmp_path).position.step == 4


def test_a_file_system_that_cannot_flush_keeps_the_state(tmp_path, monkeypatch):
    def refuse(_descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    save_state(tmp_path, state(4), keep=1)
    assert load_state(tmp_path).position.step == 4


def test_a_locked_folder_is_refused_by_name_until_its_process_ends(tmp_path):
    with lock_folder(tmp_path / "run"):
        with pytest.raises(ConfigError, match=r"run is in use by another run.*give another run\.out"):
            with lock_folder(tmp_path / "run"):
                pass
    with lock_folder(tmp_path / "run"):
        pass
    holder = (
        "import sys, pathlib; from retinashift.training.state import lock_folder; "
        "lock = lock_folder(pathlib.Path(sys.argv[1])); lock.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match="in use"), lock_folder(tmp_path / "run"):
        pass
    process.kill()
    process.wait()
    with lock_folder(tmp_path / "run"):
        pass
