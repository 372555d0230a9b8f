"""The choice of a processor: what is there, or one clear line."""

import pytest
import torch

from retinashift.inference.device import choose_device


def test_auto_is_a_device_that_computes():
    assert torch.ones(2, device=choose_device("auto")).sum().item() == 2


def test_a_named_device_is_taken_as_given():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "", "cuda:99", "cpu:banana"])
def test_a_device_that_is_not_there_is_refused_with_a_remedy(name):
    with pytest.raises(ValueError, match="device"):
        choose_device(name)
