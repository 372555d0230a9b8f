"""A transition is one function and one entry of a table: everything else takes it from there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinashift.diffusion.process import TRANSITIONS, TransitionRule
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline


def mean_step(x_t, x0, y0, eta_t, eta_prev, kappa, noise):
    """The mean of the marginal of step t-1: neither the noise of x_t nor new one."""
    assert noise is None
    return x0 + eta_prev * (y0 - x0)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(TRANSITIONS, "mean", TransitionRule(mean_step, draws_noise=False))


def test_a_toy_transition_is_used_by_the_scheduler(toy):
    scheduler = ResShiftScheduler(4, transition="mean")
    x_t, x0, y0 = (torch.full((1, 3, 4, 4), value) for value in (5.0, 1.0, 3.0))
    x_prev, estimate = scheduler.step(x0, 3, x_t, y0, return_dict=False)
    torch.testing.assert_close(x_prev, x0 + float(scheduler.eta[2]) * (y0 - x0))
    assert torch.equal(estimate, x0)


def test_a_toy_transition_is_saved_loaded_and_sampled_with(toy, tiny_pipeline, retina, tmp_path):
    results = {}
    for name in ("mean", "deterministic"):
        pipeline = tiny_pipeline()
        pipeline.scheduler = ResShiftScheduler.from_config(pipeline.scheduler.config, transition=name)
        pipeline.save_pretrained(tmp_path / name)
        results[name] = ResShiftPipeline.from_pretrained(tmp_path / name)(retina[:16, :16], 4).images[0]
    assert not np.array_equal(results["mean"], results["deterministic"])


def test_a_name_that_is_not_in_the_table_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="transition is 'mean'; allowed are ancestral, deterministic"):
        ResShiftScheduler(4, transition="mean")
