"""LPIPS: how different two images look to a network that was trained to name what is in photographs.

Source: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(CVPR 2018), version 0.1. The weights are other people's: the features of VGG16 or AlexNet as torchvision publishes
them, and the linear heads that come with torchmetrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

URL = "https://download.pytorch.org/models/"
# of the images that both networks were trained on, for values in [-1, 1]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Features:
    """The convolutions of a network up to its last features, in stages; each stage's end is compared."""

    name: str
    file: str
    """Of the weights, as torchvision publishes them."""
    stages: tuple[tuple[tuple[int, int, int], ...], ...]
    """(channels out, kernel, stride) of each convolution; its padding is half the kernel, at a stride a quarter."""
    pooled: tuple[bool, ...]
    """Stages in front of which the maximum is taken of `pool` x `pool` pixels, every other one."""
    pool: int
    smallest: int
    """Shortest side in pixels of which the last stage leaves something."""


FEATURES: dict[Backbone, Features] = {
    "vgg": Features(
        "VGG16",
        "vgg16-397923af.pth",
        tuple(((width, 3, 1),) * count for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))),
        pooled=(False, True, True, True, True),
        pool=2,
        smallest=16,
    ),
    "alex": Features(
        "AlexNet",
        "alexnet-owt-7be5be79.pth",
        (((64, 11, 4),), ((192, 5, 1),), ((384, 3, 1),), ((256, 3, 1),), ((256, 3, 1),)),
        pooled=(False, True, True, False, False),
        pool=3,
        smallest=31,
    ),
}


class LPIPSError(ValueError):
    """The weights of LPIPS cannot be had, said in one line."""


class LPIPS(nn.Module):
    """The distance; its parameters are frozen, and gradients flow to the images."""

    def __init__(self, backbone: Backbone = "vgg") -> None:
        super().__init__()
        self.backbone: Backbone = backbone
        self.stages, channels = nn.ModuleList(), 3
        for stage in FEATURES[backbone].stages:
            convolutions = []
            for width, kernel, stride in stage:
                padding = kernel // 2 if stride == 1 else kernel // 4
                convolutions.append(nn.Conv2d(channels, width, kernel, stride, padding))
                channels = width
            self.stages.append(nn.Sequential(*convolutions))
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(stage[-1][0])) for stage in FEATURES[backbone].stages)
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B,), 0 for equal ones. ValueError if a side is below `smallest`."""
        features = FEATURES[self.backbone]
        if min(a.shape[-2:]) < features.smallest:
            raise ValueError(
                f"images are {a.shape[-1]}x{a.shape[-2]}; LPIPS by {features.name} needs at least "
                f"{features.smallest}x{features.smallest}"
            )
        both = torch.cat([a, b])
        x = (both - both.new_tensor(MEAN).view(3, 1, 1)) / both.new_tensor(DEVIATION).view(3, 1, 1)
        total = x.new_zeros(len(a))
        for stage, head, pooled in zip(self.stages, self.heads, features.pooled, strict=True):
            if pooled:
                x = F.max_pool2d(x, features.pool, 2)
            for convolution in stage.children():
                x = F.relu(convolution(x))  # (2B, C, h, w)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            difference = (unit[: len(a)] - unit[len(a) :]).square()  # (B, C, h, w)
            total = total + torch.einsum("bchw,c->bhw", difference, head).mean((1, 2))
        return total  # (B,)

    @classmethod
    def pretrained(cls, backbone: Backbone = "vgg") -> LPIPS:
        """With the published weights, features from torch's cache or downloaded; LPIPSError if they cannot be had."""
        net = cls(backbone)
        net.load_features(_feature_weights(FEATURES[backbone]))
        net.load_heads(_heads(backbone))
        return net.eval()

    def load_features(self, state: Mapping[str, Tensor]) -> None:
        """Those of torchvision's network, "features.N.weight" and "features.N.bias"."""
        names = [name.removesuffix(".weight") for name in state if name.startswith("features.") and "weight" in name]
        names.sort(key=lambda name: int(name.split(".")[1]))
        convolutions = [convolution for stage in self.stages for convolution in stage.children()]
        for name, convolution in zip(names, convolutions, strict=True):
            convolution.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})

    def load_heads(self, heads: list[Tensor]) -> None:
        """One weight for each channel of each stage."""
        for head, values in zip(self.heads, heads, strict=True):
            head.data.copy_(values.flatten())


def _feature_weights(features: Features) -> dict[str, Tensor]:
    try:
        url = URL + features.file
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # no network, no disk, a damaged file
        where = Path(torch.hub.get_dir()) / "checkpoints"
        raise LPIPSError(
            f"LPIPS needs the weights of {features.name}, which could not be downloaded "
            f"({' '.join(str(error).split())[:120]}); put {features.file} into {where}, or set loss.lpips to 0"
        ) from error


def _heads(backbone: Backbone = "vgg") -> list[Tensor]:
    try:
        import torchmetrics
    except ImportError:
        raise LPIPSError("LPIPS needs torchmetrics: pip install 'retinashift[lpips]'") from None
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{backbone}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return [state[f"lin{i}.model.1.weight"] for i in range(len(FEATURES[backbone].stages))]
    except (OSError, KeyError) as error:
        raise LPIPSError(f"torchmetrics {torchmetrics.__version__} brings no heads of LPIPS at {path}") from error
