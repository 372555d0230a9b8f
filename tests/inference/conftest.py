"""A pipeline of the real classes, small enough to run in milliseconds."""

import pytest
import torch

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.light_net import LightNet


@pytest.fixture(scope="session")
def tiny_pipeline():
    """Makes one; `trained` fills the layers that start at zero, so that the network has an opinion."""

    def make(*, trained: bool = True) -> ResShiftPipeline:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = LightNet(factor=4, width=8, depth=2, time_width=16)
            if trained:
                for parameter in net.parameters():
                    torch.nn.init.normal_(parameter, std=0.1)
        scheduler = ResShiftScheduler(4, kappa=0.06, prediction_type="residual", input_scaling="none")
        return ResShiftPipeline(net.eval(), scheduler)

    return make
