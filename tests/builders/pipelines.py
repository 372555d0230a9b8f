"""Pipelines of the real classes, small enough that they sample in milliseconds."""

import torch

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.light_net import LightNet
from retinashift.models.uncertainty_head import UNCALIBRATED, UncertaintyHead


def light_pipeline(
    *, depth: int = 1, std: float | None = None, seed: int = 0, checked: bool = False, head: bool = False
) -> ResShiftPipeline:
    """A x4 pixel pipeline; with `std`, all weights are random, so that the layers that start at zero say something.

    Random weights contradict every input. Unless `checked`, the self-check and the value limits are off and the
    network's own estimate shows. With `head` it has an uncertainty head of random weights, calibrated to 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LightNet(factor=4, width=8, depth=depth, time_width=16)
        for parameter in net.parameters() if std is not None else ():
            torch.nn.init.normal_(parameter, std=std)
        measures = UncertaintyHead(width=8, hidden=6) if head else None
    scheduler = ResShiftScheduler(4, kappa=0.06, prediction_type="residual", input_scaling="none")
    kept = {} if checked else {"check_measure": "off", "bounded": False}
    calibration = UNCALIBRATED.to_config() if head else None
    return ResShiftPipeline(net.eval(), scheduler, uncertainty_head=measures, calibration=calibration, **kept)
