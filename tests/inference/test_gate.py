"""What is refused before anything in a checkpoint folder is loaded, and before its weights are used; always by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline

WEIGHTS = "denoiser/diffusion_pytorch_model.safetensors"


def refused(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        ResShiftPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save_with_index(tiny_pipeline, folder, change):
    tiny_pipeline().save_pretrained(folder)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "component", [["os", "system"], ["retinashift", "train"], ["subprocess", "Popen"], ["diffusers", "UNet2DModel"]]
)
def test_a_checkpoint_that_names_a_foreign_class_is_refused_before_import(tmp_path, component, tiny_pipeline):
    save_with_index(tiny_pipeline, tmp_path, lambda index: index.update(denoiser=component))
    with pytest.raises(CheckpointError, match="not allowed"):
        ResShiftPipeline.from_pretrained(tmp_path)


def test_an_extra_component_is_refused(tmp_path, tiny_pipeline):
    save_with_index(tiny_pipeline, tmp_path, lambda index: index.update(helper=["builtins", "exec"]))
    with pytest.raises(CheckpointError, match="helper"):
        ResShiftPipeline.from_pretrained(tmp_path)


def test_folders_that_are_no_checkpoint_are_told_in_one_line(tmp_path):
    for prepare, message in (
        (lambda p: None, "no model_index.json"),
        (lambda p: (p / "model_index.json").write_text("{"), "not JSON"),
        (lambda p: (p / "model_index.json").write_text('{"_class_name": "Other"}'), "not a RetinaShift checkpoint"),
    ):
        prepare(tmp_path)
        with pytest.raises(CheckpointError, match=message):
            ResShiftPipeline.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        ResShiftPipeline.from_pretrained(tmp_path / "missing")


def test_damaged_weights_are_refused_in_one_line(tmp_path, tiny_pipeline):
    tiny_pipeline().save_pretrained(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-1000])
    assert WEIGHTS in refused(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + whole[8:])  # a header of a terabyte
    assert WEIGHTS in refused(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    assert "denoiser lacks diffusion_pytorch_model.safetensors" in refused(tmp_path)


@pytest.fixture
def spoiled(tmp_path, tiny_pipeline):
    """Changes the weights of a checkpoint, given the name of one of its tensors, and says why they are refused."""

    def spoil(change) -> tuple[str, str]:
        tiny_pipeline().save_pretrained(tmp_path)
        state = load_file(tmp_path / WEIGHTS)
        name = sorted(name for name in state if state[name].dim() == 4)[0]
        change(state, name)
        save_file(state, tmp_path / WEIGHTS, metadata={"format": "pt"})
        return name, refused(tmp_path)

    return spoil


def test_missing_extra_misshapen_and_integer_tensors_are_refused_by_name(spoiled):
    for change, said in (
        (lambda state, name: state.pop(name), "missing: {}"),
        (lambda state, name: state.update(stranger=torch.zeros(2)), "unexpected: stranger"),
        (lambda state, name: state.update({name: torch.zeros(3)}), "of another shape: {} [3] instead of ["),
        (lambda state, name: state.update({name: state[name].int()}), "not floating point: {}"),
    ):
        name, message = spoiled(change)
        assert said.format(name) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(spoiled, value):
    name, message = spoiled(lambda state, name: state[name].view(-1)[-1:].fill_(value))
    assert f"holds weights that are not finite: {name}" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": 3}, "do not fit its config.json; missing: "),
        ({"width": 16}, "of another shape: "),
        ({"width": "wide"}, "config.json describes no LightNet"),
        ({"teacher": "x"}, "teacher"),
        ({"cond_mask": True}, "cond_mask"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(tmp_path, tiny_pipeline, change, said):
    tiny_pipeline().save_pretrained(tmp_path)
    path = tmp_path / "denoiser" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert said in refused(tmp_path)


def test_tensors_that_overlap_in_their_file_are_refused(tmp_path, tiny_pipeline):
    tiny_pipeline().save_pretrained(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    text = json.dumps(header).encode()
    (tmp_path / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    assert WEIGHTS in refused(tmp_path)
