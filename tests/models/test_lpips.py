"""LPIPS against the reference implementation, and what it says where its weights cannot be had."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch

from retinashift.models import lpips
from retinashift.models.lpips import LPIPS, LPIPSError, _heads


def recipe_vgg(entries: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The weights of the vectors' VGG16, under torchvision's names: the recipe with gain sqrt(2)."""
    state = {}
    for name, shape in entries.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).random_sample(math.prod(shape)) * 2.0 - 1.0
        values *= math.sqrt(3) * math.sqrt(2) / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.2
        _, number, part = name.split(".")
        state[f"features.{number}.{part}"] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    return state


@pytest.mark.shared
def test_distances_and_heads_are_those_of_the_reference(parity):
    vectors, net = parity.vectors("training", "lpips."), LPIPS()
    net.load_vgg(recipe_vgg(parity.facts()["lpips_entries"]))
    net.load_heads([vectors[f"lin{i}"] for i in range(5)])
    parity.check("training", "lpips.value", net(vectors["in0"], vectors["in1"]), 1e-5)
    pytest.importorskip("torchmetrics", reason="the heads come with torchmetrics (extra lpips)")
    for i, head in enumerate(_heads()):
        parity.check("training", f"lpips.lin{i}", head.flatten(), 1e-7)


def test_equal_images_are_at_distance_zero_and_gradients_reach_them():
    net = LPIPS()
    a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(net(a, a), torch.zeros(2))
    b = (a * 0.5).requires_grad_()
    net(a, b).sum().backward()
    assert b.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_that_cannot_be_downloaded_are_asked_for_in_one_line(monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(LPIPSError, match=r"put vgg16-397923af.pth into .*, or set loss.lpips to 0") as caught:
        LPIPS.pretrained()
    assert "\n" not in str(caught.value)


def test_heads_that_are_not_installed_are_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    with pytest.raises(LPIPSError, match=r"retinashift\[lpips\]"):
        lpips._heads()
