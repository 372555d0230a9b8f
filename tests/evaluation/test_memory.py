"""Peak memory is that of the work, not of what came before."""

import sys

import numpy as np
import pytest
import torch

from retinashift.evaluation.memory import PeakMemory


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or torch.cuda.is_available(), reason="only Linux tells the peak of a process"
)
def test_the_peak_is_what_the_work_took_and_gave_back():
    with PeakMemory() as before:
        np.ones(80 * 2**17)  # 80 MiB, given back at once
    with PeakMemory() as after:
        pass
    if before.mib is None:
        pytest.skip("this system does not let the mark be reset")
    assert 75 < before.mib < 100
    assert after.mib < 10
