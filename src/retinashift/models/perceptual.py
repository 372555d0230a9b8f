"""Perceptual distances: LPIPS, and ST-LPIPS, which a shift of one pixel hardly changes. Smaller is closer.

Both compare the features of networks trained on natural photographs. The weights are third-party and come with the
extra `lpips`: ST-LPIPS inside the wheel `stlpips_pytorch`; the linear heads of LPIPS inside torchmetrics. The features
of LPIPS, VGG16 or AlexNet as torchvision publishes them, are read from torch's cache or downloaded into it once.
No code of these packages is run.

Sources: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(CVPR 2018), version 0.1. Ghildyal, Liu, "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022), arXiv 2207.13686;
its weights are the authors', BSD 2-Clause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backbone = Literal["vgg", "alex"]

URL = "https://download.pytorch.org/models/"
# mean and deviation of the images that the networks were trained on, for values in [-1, 1]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualError(ValueError):
    """The weights of a perceptual distance are missing or damaged; one line."""


@dataclass(frozen=True)
class Features:
    """The convolutions of a network up to its last features, in stages; the end of each stage is compared."""

    name: str
    file: str
    """Of the weights, as torchvision publishes them."""
    stages: tuple[tuple[tuple[int, int, int], ...], ...]
    """(channels out, kernel, stride) of each convolution; its padding is half the kernel, at a stride a quarter."""
    pooled: tuple[bool, ...]
    """Stages that begin with a maximum over `pool` x `pool` pixels, at every other pixel."""
    pool: int
    smallest: int
    """Shortest side in pixels from which the last stage still has a pixel."""


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


class LPIPS(nn.Module):
    """The distance by VGG16 or AlexNet; its parameters are frozen, and gradients flow to the images."""

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
        x = _standardised(torch.cat([a, b]))
        total = x.new_zeros(len(a))
        for stage, head, pooled in zip(self.stages, self.heads, features.pooled, strict=True):
            if pooled:
                x = F.max_pool2d(x, features.pool, 2)
            for convolution in stage.children():
                x = F.relu(convolution(x))  # (2B, C, h, w)
            total = total + _distance(x[: len(a)], x[len(a) :], head).mean((1, 2))
        return total  # (B,)

    @classmethod
    def pretrained(cls, backbone: Backbone = "vgg") -> LPIPS:
        """With the published weights. PerceptualError if they cannot be had."""
        net = cls(backbone)
        net.load_heads(_heads(backbone))
        net.load_features(_feature_weights(FEATURES[backbone]))
        return net.eval()

    def load_features(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of torchvision's network: "features.N.weight" and "features.N.bias"."""
        names = [name.removesuffix(".weight") for name in state if name.startswith("features.") and "weight" in name]
        names.sort(key=lambda name: int(name.split(".")[1]))
        convolutions = [convolution for stage in self.stages for convolution in stage.children()]
        for name, convolution in zip(names, convolutions, strict=True):
            convolution.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})

    def load_heads(self, heads: list[Tensor]) -> None:
        """Load one weight for each channel of each stage."""
        for head, values in zip(self.heads, heads, strict=True):
            head.data.copy_(values.flatten())


class ShiftTolerantLPIPS(nn.Module):
    """ST-LPIPS as a map, by an AlexNet with antialiased strides; its parameters are frozen."""

    WIDTHS = (3, 64, 192, 384, 256, 256)
    KERNELS = (11, 5, 3, 3, 3)
    PADDINGS = (2, 2, 1, 1, 1)
    SMALLEST = 32
    """Shortest side in pixels that survives three halvings and their windows."""
    WEIGHTS = Path("weights") / "vST0.0" / "alex_shift_tolerant.pth"
    PUBLISHED = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    """Names of the convolutions in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=padding)
            for (a, b), kernel, padding in zip(pairwise(self.WIDTHS), self.KERNELS, self.PADDINGS, strict=True)
        )
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in self.WIDTHS[1:])
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides at least 32 -> (B, H, W), 0 where they are equal."""
        total = a.new_zeros(len(a), *a.shape[-2:])
        for fa, fb, head in zip(self.features(a), self.features(b), self.heads, strict=True):
            distance = _distance(fa, fb, head)[:, None]  # (B, 1, h, w)
            total = total + F.interpolate(distance, a.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return total  # (B, H, W)

    def features(self, image: Tensor) -> list[Tensor]:
        """Five maps, halved three times: the stride follows the blur, and the first blur the convolution."""
        first, second, third, fourth, fifth = self.convolutions
        x = F.relu(_halve(first(_standardised(image))))
        found = [x]  # (B, 64, H/2, W/2)
        for convolution in (second, third):
            x = F.relu(convolution(_halve(F.max_pool2d(x, 3, stride=1))))
            found.append(x)  # (B, 192, H/4, W/4), (B, 384, H/8, W/8)
        for convolution in (fourth, fifth):
            x = F.relu(convolution(x))
            found.append(x)  # (B, 256, H/8, W/8)
        return found

    @classmethod
    def pretrained(cls) -> ShiftTolerantLPIPS:
        """With the weights of the wheel. PerceptualError if they are missing or damaged."""
        path = _package("stlpips_pytorch") / cls.WEIGHTS
        net = cls()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, convolution in zip(cls.PUBLISHED, net.convolutions, strict=True):
                convolution.load_state_dict({part: state[f"net.{name}.{part}"] for part in ("weight", "bias")})
            for number, head in enumerate(net.heads):
                head.copy_(state[f"lin{number}.model.1.weight"].reshape(head.shape))
        except (OSError, KeyError, RuntimeError) as error:
            raise PerceptualError(
                f"{path} is not the file of stlpips_pytorch 0.0.2 ({_reason(error)}); install it again"
            ) from error
        return net.eval()


def _standardised(images: Tensor) -> Tensor:
    mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


def _distance(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """Weighted squared difference of features of unit length, (B, C, h, w) each -> (B, h, w)."""
    unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
    return torch.einsum("bchw,c->bhw", (unit[0] - unit[1]).square(), head)


def _halve(x: Tensor) -> Tensor:
    """Binomial blur, then every other pixel; padded by two, so that the map grows by a pixel."""
    kernel = x.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def _package(name: str) -> Path:
    """Folder of an installed package, which is not imported. PerceptualError names the extra."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PerceptualError(f"LPIPS and ST-LPIPS need {name}: pip install 'retinashift[lpips]'")
    return Path(spec.submodule_search_locations[0])


def _heads(backbone: Backbone) -> list[Tensor]:
    path = _package("torchmetrics") / "functional" / "image" / "lpips_models" / f"{backbone}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return [state[f"lin{i}.model.1.weight"] for i in range(len(FEATURES[backbone].stages))]
    except (OSError, KeyError, RuntimeError) as error:
        raise PerceptualError(f"{path} does not hold the heads of LPIPS ({_reason(error)})") from error


def _feature_weights(features: Features) -> dict[str, Tensor]:
    try:
        url = URL + features.file
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # no network, no disk, a damaged file
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise PerceptualError(
            f"LPIPS needs the weights of {features.name}, which could not be downloaded ({_reason(error)}): "
            f"put {URL}{features.file} into {folder}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
