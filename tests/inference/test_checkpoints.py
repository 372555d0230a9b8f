"""Names of checkpoints: those that come along, folders, and what is neither."""

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import DEFAULT, ResShiftPipeline, open_checkpoint, shipped_names
from retinashift.inference.record import checkpoint_hash
from retinashift.inference.settings import Sampling


def test_every_name_that_comes_along_opens_and_no_two_are_one():
    assert DEFAULT in shipped_names()
    assert len({checkpoint_hash(open_checkpoint(name)) for name in shipped_names()}) == len(shipped_names())


def test_no_name_and_shipped_mean_the_default():
    default = checkpoint_hash(ResShiftPipeline.from_shipped())
    assert {checkpoint_hash(open_checkpoint(name)) for name in ("", "shipped", DEFAULT)} == {default}


def test_a_folder_goes_before_a_name_that_comes_along(tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_pipeline().save_pretrained(tmp_path / DEFAULT)
    assert open_checkpoint(DEFAULT).denoiser.config.width == 8


def test_a_name_that_means_nothing_is_refused():
    for name in ("x9", "runs/missing", "./x4/", "~/nowhere"):
        with pytest.raises(CheckpointError, match=rf"no checkpoint folder at {name}; give .*x4.* or hf:owner/name"):
            open_checkpoint(name)


def test_only_a_name_spelled_as_one_of_the_hub_is_looked_up_there(monkeypatch):
    asked = []

    def download(name, **options):
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(ResShiftPipeline, "download", download)
    with pytest.raises(CheckpointError):
        open_checkpoint("owner/name")
    assert asked == []
    with pytest.raises((CheckpointError, OSError)):
        open_checkpoint("hf:owner/name")
    assert asked == ["owner/name"]


def test_the_one_step_student_draws_in_one_call_what_is_sharper_than_the_mean_and_keeps_to_the_input(retina):
    student, teacher = open_checkpoint("x4_one_step"), open_checkpoint("x4")
    assert student.plan(Sampling(mode="realistic")).steps == 1
    lr = bicubic_pillow(retina, 4)
    uses = (student, "realistic"), (teacher, "realistic"), (teacher, "faithful")
    results = [pipe(lr, mode=mode) for pipe, mode in uses]
    finest = [np.diff(result.images[0].astype(float), n=2, axis=0).std() for result in results]
    assert finest[0] > 1.2 * finest[2]
    assert finest[0] == pytest.approx(finest[1], rel=0.25)
    assert results[0].consistency[0] > 60
    with pytest.raises(ValueError, match="distilled"):
        student(lr, mode="faithful")


def test_a_folder_with_an_adapter_alone_opens_as_x4_with_it_and_a_damaged_one_is_refused(tmp_path):
    bundled = Path(str(files("retinashift") / "weights" / "x4_stare"))
    own = Path(shutil.copytree(bundled, tmp_path / "mine"))
    expected = checkpoint_hash(open_checkpoint("x4_stare"))
    for folder in (own, own / "adapter"):
        pipeline = open_checkpoint(str(folder))
        assert checkpoint_hash(pipeline) == expected
        assert pipeline.calibration is None
    file = next(own.rglob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="mine.*: damaged") as caught:
        open_checkpoint(str(own))
    assert "\n" not in str(caught.value)
    save_file({"other.lora_A.weight": torch.ones(1, 1)}, file)
    with pytest.raises(CheckpointError, match="does not fit this network: it has no other.lora_A.weight"):
        open_checkpoint(str(own))


@pytest.mark.parametrize("settings", [{}, {"scale": 2}], ids=["x4", "x2"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_strength_leads_from_the_result_of_x4_to_the_restored_one(retina, settings, grey):
    photograph = np.ascontiguousarray(retina[:24, :30, 1] if grey else retina[:24, :30])
    restore = ResShiftPipeline.from_shipped("x4_restore")
    unrestored = ResShiftPipeline.from_shipped("x4")(photograph, **settings).images[0].astype(float)
    none, half, whole = (restore(photograph, strength=share, **settings) for share in (0, 0.5, 1))
    restored = restore(photograph, **settings).images[0]
    assert np.array_equal(none.images[0], unrestored)
    assert np.array_equal(whole.images[0], restored)
    assert not np.array_equal(unrestored, restored)
    assert np.abs(half.images[0] - (unrestored + restored) / 2).max() <= 1
    assert [made.account(0).options.get("strength") for made in (half, whole)] == [0.5, None]


@pytest.mark.parametrize(
    ("name", "strength", "reason"), [("x4", 0.5, "x4_restore"), ("x4_restore", 1.5, "from 0 to 1")]
)
def test_a_strength_without_a_meaning_is_refused(name, strength, reason):
    with pytest.raises(ValueError, match=reason):
        ResShiftPipeline.from_shipped(name)(np.zeros((8, 8, 3), np.uint8), strength=strength)


def test_a_blend_has_no_uncertainty():
    with pytest.raises(ValueError, match="omit strength or uncertainty"):
        ResShiftPipeline.from_shipped("x4_restore")(
            np.zeros((8, 8, 3), np.uint8), strength=0.5, output_uncertainty=True
        )
