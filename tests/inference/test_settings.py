"""The settings refuse what contradicts itself, once for all who use them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retinashift.inference.settings import Plan, Sampling

CHECKPOINT = {
    "back_projections": 1, "detail_gain": 1.5, "detail_steps": 2, "detail_transition": "deterministic",
    "default_steps": 1, "distilled": False, "scale": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"num_inference_steps": 2.5}, r"num_inference_steps is 2\.5"),
        ({"ensemble_size": 0}, "ensemble_size is 0"),
        ({"ensemble_size": None}, "ensemble_size is None"),
        ({"back_projections": -1}, "back_projections is -1"),
        ({"memory": 0}, "memory is 0"),
        ({"mode": "pretty"}, "allowed are faithful, realistic"),
        ({"precision": "fp8"}, "allowed are auto, fp32, bf16, fp16"),
        ({"output_uncertainty": True, "ensemble_size": 4}, "not ensemble 4"),
        ({"output_uncertainty": True, "mode": "realistic"}, "not mode realistic"),
    ],
)
def test_a_contradiction_is_one_line_that_names_the_value(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        Sampling(**wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "checkpoint", "plan"),
    [
        ({}, {}, Plan(1, 1, noise=False, curve="mean")),
        ({"mode": "faithful"}, {"default_steps": 4}, Plan(1, 1, noise=False, curve="mean")),
        ({"num_inference_steps": 3, "back_projections": 0}, {}, Plan(3, 0)),
        ({"mode": "realistic"}, {}, Plan(2, 2, 1.5, "deterministic", curve="sample")),
        (
            {"mode": "realistic"},
            {"detail_steps": 0, "back_projections": 0},
            Plan(4, 0, 1.5, "deterministic", curve="sample"),
        ),
        ({"output_uncertainty": True, "mode": "faithful"}, {"default_steps": 4}, Plan(1, 1, noise=False, curve="mean")),
        ({"mode": "realistic"}, {"distilled": True, "detail_gain": 1.0}, Plan(1, 1, curve="sample")),
        ({}, {"distilled": "mean"}, Plan(1, 1, noise=False, curve="mean")),
        (
            {"mode": "faithful", "output_uncertainty": True},
            {"distilled": "mean"},
            Plan(1, 1, noise=False, curve="mean"),
        ),
    ],
)
def test_what_settings_mean_follows_from_mode_and_checkpoint(settings, checkpoint, plan):
    assert Sampling(**settings).plan(CHECKPOINT | checkpoint, 4) == plan


@pytest.mark.parametrize(
    ("settings", "checkpoint", "message"),
    [
        ({"num_inference_steps": 5}, {}, "num_inference_steps is 5; this checkpoint has 1 to 4"),
        ({"mode": "realistic", "num_inference_steps": 1}, {}, "mode realistic with 1 step"),
        ({"mode": "faithful", "num_inference_steps": 2}, {}, "mode faithful is one step, and 2 draw a sample"),
        ({"ensemble_size": 2}, {}, "ensemble averages samples, and one step draws none"),
        ({"mode": "faithful"}, {"distilled": True}, "distilled"),
        ({"output_uncertainty": True}, {"distilled": True}, "distilled"),
        ({"output_uncertainty": True}, {"default_steps": 4}, "not 4 steps"),
        ({"num_inference_steps": 2}, {"distilled": True}, "distilled"),
        ({"num_inference_steps": 2}, {"distilled": "mean"}, "distilled"),
        ({"mode": "realistic"}, {"distilled": "mean"}, "distilled"),
        ({"ensemble_size": 2}, {"distilled": "mean"}, "one step draws none"),
    ],
)
def test_a_use_that_the_checkpoint_does_not_have_is_refused(settings, checkpoint, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings).plan(CHECKPOINT | checkpoint, 4)


def test_the_settings_load_no_torch():
    code = "import sys, retinashift.inference.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
