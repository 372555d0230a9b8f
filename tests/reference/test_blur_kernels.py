"""Kernels against the reference vectors, and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .blur_kernels import (
    filter_with,
    gaussian_kernel,
    plateau_kernel,
    sinc_kernel,
    unsharp_mask,
)

CASES = {"k7": (7, 0.6, 1.4, 0.3), "k21": (21, 2.5, 1.1, -1.2)}


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_reference(parity, case):
    size, *shape = CASES[case]
    found = {"iso": gaussian_kernel(size, shape[0]), "aniso": gaussian_kernel(size, *shape)}
    for beta in (0.7, 2.5):
        found[f"generalized_b{beta}"] = gaussian_kernel(size, *shape, beta=beta)
        found[f"plateau_b{beta}"] = plateau_kernel(size, *shape, beta=beta)
    for name, kernel in found.items():
        parity.check("degradation", f"kernel.{name}.{case}", torch.from_numpy(kernel), 1e-5)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "cutoff", "size", "padded"),
    [("c1.047_k7_p15", np.pi / 3, 7, 15), ("c2.200_k13_p15", 2.2, 13, 15), ("c3.142_k21_p0", np.pi, 21, 0)],
)
def test_sinc_kernels_equal_the_reference(parity, name, cutoff, size, padded):
    kernel = torch.from_numpy(sinc_kernel(size, cutoff, padded))
    parity.check("degradation", f"kernel.sinc.{name}", kernel, 1e-5)


@pytest.mark.shared
def test_filtering_and_sharpening_equal_the_reference(parity):
    vectors = parity.vectors("degradation")
    x = vectors["x"] / 255
    kernels = torch.stack([vectors["kernel.aniso.k7"], vectors["kernel.plateau_b2.5.k7"]])
    parity.check("degradation", "filter2d", filter_with(x, kernels), 1e-5)
    tiled = x[:1].repeat(1, 1, 2, 2)[..., :64, :64]
    parity.check("degradation", "usm", unsharp_mask(tiled), 1e-5)


def test_a_quarter_turn_of_the_axes_turns_the_kernel():
    kernel = gaussian_kernel(9, 2.0, 0.7, 0.4)
    assert np.allclose(gaussian_kernel(9, 2.0, 0.7, 0.4 + np.pi / 2), np.rot90(kernel))
    assert np.allclose(gaussian_kernel(9, 0.7, 2.0, 0.4 + np.pi / 2), kernel)


def test_a_flat_picture_stays_flat():
    flat = torch.full((2, 3, 32, 32), 0.3)
    for kernel in (plateau_kernel(11, 2.0), sinc_kernel(11, 2.0)):
        assert torch.allclose(filter_with(flat, torch.from_numpy(kernel)), flat)
    assert torch.allclose(unsharp_mask(flat, size=11), flat)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="size is 8"):
        gaussian_kernel(8, 1.0)
