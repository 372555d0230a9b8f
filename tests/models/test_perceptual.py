"""LPIPS against the reference implementation, and what it says where its weights cannot be had."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch

from retinashift.models import perceptual
from retinashift.models.perceptual import LPIPS, PerceptualError, ShiftTolerantLPIPS, published_heads


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
    net.load(recipe_vgg(parity.facts()["lpips_entries"]), [vectors[f"lin{i}"] for i in range(5)])
    parity.check("training", "lpips.value", net(vectors["in0"], vectors["in1"]), 1e-5)
    pytest.importorskip("torchmetrics", reason="the heads come with torchmetrics (extra lpips)")
    for i, head in enumerate(published_heads("vgg")):
        parity.check("training", f"lpips.lin{i}", head.flatten(), 1e-7)


def test_distances_by_alexnet_are_those_of_its_layers_and_published_heads():
    pytest.importorskip("torchmetrics", reason="the heads come with torchmetrics (extra lpips)")
    conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = torch.nn.Sequential(  # torchvision's AlexNet, "features"
            conv(3, 64, 11, 4, 2), relu(), pool(3, 2), conv(64, 192, 5, padding=2), relu(), pool(3, 2),
            conv(192, 384, 3, padding=1), relu(), conv(384, 256, 3, padding=1), relu(),
            conv(256, 256, 3, padding=1), relu(),
        )  # fmt: skip
    net, heads = LPIPS("alex"), published_heads("alex")
    net.load({f"features.{name}": value for name, value in layers.state_dict().items()}, heads)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 3, 45, 64, generator=generator) * 2 - 1 for _ in range(2))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of values in [0, 1]
    xa, xb = (((x / 2 + 0.5) - mean[:, None, None]) / deviation[:, None, None] for x in (a, b))
    expected, stage = torch.zeros(2), 0
    for layer in layers:
        xa, xb = layer(xa), layer(xb)
        if isinstance(layer, relu):
            difference = (torch.nn.functional.normalize(xa) - torch.nn.functional.normalize(xb)).square()
            expected += (difference * heads[stage].view(1, -1, 1, 1)).sum(1).mean((1, 2))
            stage += 1
    assert stage == 5
    assert expected.min() > 0.01
    torch.testing.assert_close(net(a, b), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("backbone", "smallest"), [("vgg", 16), ("alex", 31)])
def test_images_too_small_for_the_last_stage_are_refused(backbone, smallest):
    net = LPIPS(backbone)
    assert net(torch.zeros(1, 3, smallest, 40), torch.ones(1, 3, smallest, 40)).isfinite().all()
    with pytest.raises(ValueError, match=f"images are 40x{smallest - 1}; LPIPS by .* needs at least {smallest}x"):
        net(*torch.zeros(2, 1, 3, smallest - 1, 40))


@pytest.mark.parametrize("backbone", ["vgg", "alex"])
def test_equal_images_are_at_distance_zero_and_gradients_reach_them(backbone):
    net = LPIPS(backbone)
    a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(net(a, a), torch.zeros(2))
    b = (a * 0.5).requires_grad_()
    net(a, b).sum().backward()
    assert b.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(("backbone", "file"), [("vgg", "vgg16-397923af.pth"), ("alex", "alexnet-owt-7be5be79.pth")])
def test_weights_that_cannot_be_downloaded_are_asked_for_in_one_line(monkeypatch, backbone, file):
    pytest.importorskip("torchmetrics", reason="the heads come with torchmetrics (extra lpips)")

    def offline(*arguments, **options):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(PerceptualError, match=f"put https://.*/{file} into .*") as caught:
        LPIPS.pretrained(backbone)
    assert "\n" not in str(caught.value)


def test_downloaded_weights_of_another_checksum_are_refused_and_not_kept(monkeypatch, tmp_path):
    """The name of each published file ends with the start of its SHA-256."""
    pytest.importorskip("torchmetrics", reason="the heads come with torchmetrics (extra lpips)")
    state = {"features.0.weight": torch.zeros(64, 3, 3, 3)}
    torch.save(state, tmp_path / "vgg16-397923af.pth")
    monkeypatch.setattr(perceptual, "URL", tmp_path.as_uri() + "/")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(PerceptualError, match="invalid hash value"):
        LPIPS.pretrained("vgg")
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_weights_that_are_not_installed_are_asked_for(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    for pretrained in (LPIPS.pretrained, ShiftTolerantLPIPS.pretrained):
        with pytest.raises(PerceptualError, match=r"retinashift\[lpips\]"):
            pretrained()
