"""A state on disk is the former one or the new one, never half of either."""

import os

import pytest
import torch

from retinashift.training.state import Position, State, StateError, load_state, save_state


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
    with pytest.raises(StateError, match="cannot be resumed from"):
        load_state(tmp_path)


def test_a_state_with_code_in_it_is_refused_and_nothing_runs(tmp_path):
    sentinel = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {sentinel}",)

    save_state(tmp_path, state(4), keep=1)
    torch.save({"optimizer": Evil()}, tmp_path / "00000004" / "optimizer.pt")
    with pytest.raises(StateError):
        load_state(tmp_path)
    assert not sentinel.exists()
