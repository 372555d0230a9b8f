"""Reading official files: every form they are published in, and no code whatever they contain."""

from __future__ import annotations

import builtins
import os
import pickle
import pkgutil

import pytest
import torch
from safetensors.torch import save_file

from retinashift.official.convert import read_official
from retinashift.official.networks import OfficialError, check_names

WEIGHT = torch.arange(6.0).view(2, 3)


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("training", [False, True])
def test_averaged_and_training_files_load_whatever_wraps_their_names(tmp_path, prefix, training):
    # one name without the prefix: it is taken from each name by itself
    state = {f"{prefix}layer.weight": WEIGHT, "bare.weight": WEIGHT + 1, f"{prefix}a.attn_mask": WEIGHT}
    extra = {"iters_start": 7, "log_step": {"train": 3}, "amp_scaler": {"scale": 65536.0, "_growth_tracker": 2}}
    torch.save(extra | {"state_dict": state} if training else state, tmp_path / "a.pth")
    loaded = read_official(tmp_path / "a.pth")
    assert list(loaded) == ["layer.weight", "bare.weight", "a.attn_mask"]
    assert torch.equal(loaded["layer.weight"], WEIGHT)


def test_a_safetensors_file_loads_too(tmp_path):
    save_file({"module.layer.weight": WEIGHT}, tmp_path / "a.safetensors")
    assert torch.equal(read_official(tmp_path / "a.safetensors")["layer.weight"], WEIGHT)


@pytest.mark.parametrize("place", ["alone", "in the state dict", "as a name", "beside it", "nested"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["os.system", "exec", "eval"])
def test_a_file_with_code_is_refused_and_the_code_does_not_run(tmp_path, place, zipped, kind):
    sentinel = tmp_path / "ran"
    code = f"open({str(sentinel)!r}, 'w').close()"
    command = f"{'type nul >' if os.name == 'nt' else 'touch'} {sentinel}"
    bomb = {"os.system": Runs(os.system, command), "exec": Runs(builtins.exec, code), "eval": Runs(eval, code)}[kind]
    contents = {
        "alone": bomb,
        "in the state dict": {"state_dict": {"w": WEIGHT, "x": bomb}},
        "as a name": {"w": WEIGHT, bomb: WEIGHT},
        "beside it": {"state_dict": {"w": WEIGHT}, "amp_scaler": bomb},
        "nested": {"w": Runs(list, [Runs(dict, [("a", bomb)])])},
    }[place]
    torch.save(contents, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(OfficialError, match="refused.*nothing in it was run") as caught:
        read_official(tmp_path / "bad.pth")
    assert not sentinel.exists()
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch itself advises to switch the protection off
    bomb.call[0](*bomb.call[1])
    assert sentinel.exists()  # the code was one that works


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_raw_pickle_is_refused_and_nothing_else_is_said(tmp_path, protocol, recwarn):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Runs(os.mkdir, str(tmp_path / "ran")), protocol=protocol))
    with pytest.raises(OfficialError, match="refused"):
        read_official(tmp_path / "bad.pth")
    assert not recwarn.list
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"w": Runs(os.getcwd)}, {"w": WEIGHT}])
def test_a_file_is_opened_by_torch_once_and_only_with_the_restricted_reader(tmp_path, monkeypatch, content):
    torch.save(content, tmp_path / "a.pth")
    calls, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **options: calls.append(options) or load(*a, **options))
    try:
        read_official(tmp_path / "a.pth")
    except OfficialError:
        pass
    assert [options["weights_only"] for options in calls] == [True]


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, name, kept):
    path = tmp_path / name
    state = {"w": torch.randn(100, 100, generator=torch.Generator().manual_seed(0))}
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(OfficialError, match=name) as caught:
        read_official(path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (WEIGHT, "holds a Tensor"),
        ([WEIGHT], "holds a list"),
        ({"w": WEIGHT, "steps": 4}, "holds int under 'steps'"),
        ({"w": {"deep": WEIGHT}}, "holds dict under 'w'"),
        ({"w": WEIGHT.to_sparse()}, "holds a tensor without plain values under 'w'"),
        ({"w": WEIGHT.to("meta")}, "holds a tensor without plain values under 'w'"),
        ({"w": WEIGHT / 0, "x": WEIGHT}, "values that are not finite: w; get"),
        ({"w": WEIGHT, "x": (WEIGHT * torch.inf).to(torch.float8_e5m2)}, "values that are not finite: x; get"),
        ({1: WEIGHT}, "under '1'"),
        ({"\x1b[2Jw": WEIGHT}, r"under '.x1b\[2Jw'"),
        ({"state_dict": 3}, "holds a int"),
        ({}, "holds no tensors"),
        ({"module.w": WEIGHT, "w": WEIGHT}, "w twice"),
    ],
)
def test_anything_but_tensors_by_name_is_refused(tmp_path, contents, said):
    torch.save(contents, tmp_path / "a.pth")
    with pytest.raises(OfficialError, match=said):
        read_official(tmp_path / "a.pth")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.pth"):
        read_official(tmp_path / "a.pth")


def test_names_that_are_missing_unexpected_misshapen_or_integer_are_listed():
    expected = dict.fromkeys(("a", "b", "c", *(f"layer{i}" for i in range(20))), WEIGHT)
    found = {"a": WEIGHT.T, "b": WEIGHT.long(), "stranger": WEIGHT}
    with pytest.raises(OfficialError) as caught:
        check_names(found, expected, "net")
    for said in (
        "missing: c, layer0",
        "and 17 more",
        "unexpected: stranger",
        "a [3, 2] instead of [2, 3]",
        "not floating point: b",
    ):
        assert said in str(caught.value)
    check_names(expected, expected, "net")


def test_a_function_that_finds_others_by_name_is_refused(tmp_path):
    torch.save({"w": WEIGHT, "x": Runs(pkgutil.resolve_name, "os:system")}, tmp_path / "bad.pth")
    with pytest.raises(OfficialError, match="refused"):
        read_official(tmp_path / "bad.pth")


def test_a_file_of_another_kind_or_with_a_wrong_checksum_is_refused(tmp_path):
    torch.save({"state_dict": {"w": WEIGHT}}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    (tmp_path / "a.safetensors").write_bytes(data)  # a pickle under the suffix of a safe format
    place = data.index(WEIGHT.numpy().tobytes())
    data[place] ^= 1  # one bit of the weights, whose checksum the zip archive holds
    (tmp_path / "b.pth").write_bytes(data)
    for name in ("a.safetensors", "b.pth"):
        with pytest.raises(OfficialError, match=name):
            read_official(tmp_path / name)
