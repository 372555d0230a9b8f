"""A checkpoint on disk, small enough that commands take milliseconds."""

import pytest
import torch

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.light_net import LightNet


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Of a network without opinion; for reading only."""
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LightNet(factor=4, width=8, depth=1, time_width=16)
    ResShiftPipeline(
        net, ResShiftScheduler(4, kappa=0.06, prediction_type="residual", input_scaling="none")
    ).save_pretrained(folder)
    return folder
