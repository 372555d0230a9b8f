"""Perceptual distances: LPIPS, and ST-LPIPS, which a shift of one pixel hardly changes. Smaller is closer.

Both compare the features of networks trained on natural photographs. The weights are third-party and come with the
extra `lpips`: ST-LPIPS inside the wheel `stlpips_pytorch`; the linear heads of LPIPS inside torchmetrics. The features
of LPIPS, VGG16 or AlexNet as torchvision publishes them, are read from torch's cache or downloaded into it once.
No code of these packages is run.

Sources: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(CVPR 2018), version 0.1. Ghildyal, Liu, "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022), arXiv 2207.13686;
its weights are the authors', BSD 2-Clause.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
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


class Halve(nn.Module):
    """Binomial blur, then every other pixel; padded by two, so that the map grows by a pixel."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = x.new_tensor([1.0, 2.0, 1.0]) / 4
        kernel = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def vgg_stages() -> list[nn.Sequential]:
    """The convolutions of VGG16 up to each comparison."""
    stages, channels = list[nn.Sequential](), 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        stages.append(nn.Sequential(*layers))
    return stages


def alex_stages(shift_tolerant: bool = False) -> list[nn.Sequential]:
    """The convolutions of AlexNet up to each comparison; shift-tolerant, a blur goes before each stride."""
    pool: list[nn.Module] = [nn.MaxPool2d(3, 1), Halve()] if shift_tolerant else [nn.MaxPool2d(3, 2)]
    first = [nn.Conv2d(3, 64, 11, padding=2), Halve()] if shift_tolerant else [nn.Conv2d(3, 64, 11, 4, 2)]
    return [
        nn.Sequential(*first, nn.ReLU()),
        nn.Sequential(*pool, nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(*pool, nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


class Distance(nn.Module):
    """Weighted differences of the features of two images at the end of each stage of a network with frozen weights."""

    PREFIX = "features."  # of the convolutions' names in published weights

    def __init__(self, stages: list[nn.Sequential]):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.convolutions = [layer for layer in self.stages.modules() if isinstance(layer, nn.Conv2d)]
        last = ([layer for layer in stage if isinstance(layer, nn.Conv2d)][-1] for stage in stages)
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(layer.out_channels)) for layer in last)
        self.requires_grad_(False)

    def maps(self, a: Tensor, b: Tensor) -> Iterator[Tensor]:
        """Images (B, 3, H, W) in [-1, 1] -> for each stage the distance, (B, h, w), 0 where features are equal."""
        mean, deviation = (a.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        a, b = (a - mean) / deviation, (b - mean) / deviation
        for stage, head in zip(self.stages, self.heads, strict=True):
            a, b = stage(a), stage(b)  # (B, C, h, w)
            unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
            yield torch.einsum("bchw,c->bhw", (unit[0] - unit[1]).square(), head)

    def load(self, state: Mapping[str, Tensor], heads: Sequence[Tensor]) -> None:
        """Load published weights: of the convolutions, in the order of their numbers, and of each stage's channels."""
        names = [name for name in state if name.startswith(self.PREFIX) and name.endswith(".weight")]
        names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        for name, convolution in zip(names, self.convolutions, strict=True):
            weight, bias = state[name], state[name.removesuffix("weight") + "bias"]
            convolution.load_state_dict({"weight": weight, "bias": bias})
        for head, values in zip(self.heads, heads, strict=True):
            head.data.copy_(values.flatten())


BACKBONES: dict[Backbone, tuple[str, str, int, Callable[[], list[nn.Sequential]]]] = {
    "vgg": ("VGG16", "vgg16-397923af.pth", 16, vgg_stages),
    "alex": ("AlexNet", "alexnet-owt-7be5be79.pth", 31, alex_stages),
}
"""Networks as torchvision publishes them: name, file, shortest side whose last stage still has a pixel, stages."""


class LPIPS(Distance):
    """The distance by VGG16 or AlexNet."""

    def __init__(self, backbone: Backbone = "vgg") -> None:
        self.name, _, self.smallest, stages = BACKBONES[backbone]
        super().__init__(stages())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B,), 0 for equal ones. ValueError if a side is below `smallest`."""
        if min(a.shape[-2:]) < self.smallest:
            least = f"{self.smallest}x{self.smallest}"
            raise ValueError(f"images are {a.shape[-1]}x{a.shape[-2]}; LPIPS by {self.name} needs at least {least}")
        return torch.stack([distance.mean((1, 2)) for distance in self.maps(a, b)]).sum(0)  # (B,)

    @classmethod
    def pretrained(cls, backbone: Backbone = "vgg") -> "LPIPS":
        """With the published weights. PerceptualError if they cannot be had."""
        net, heads, url = cls(backbone), published_heads(backbone), URL + BACKBONES[backbone][1]
        try:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
        except Exception as error:  # no network, no disk, a damaged file
            raise PerceptualError(
                f"LPIPS needs the weights of {net.name}, which could not be downloaded ({shorten(str(error), 120)}): "
                f"put {url} into {Path(torch.hub.get_dir(), 'checkpoints')}"
            ) from error
        net.load(state, heads)
        return net.eval()


class ShiftTolerantLPIPS(Distance):
    """ST-LPIPS as a map, by AlexNet with antialiased strides."""

    PREFIX = "net.slice"

    def __init__(self) -> None:
        super().__init__(alex_stages(shift_tolerant=True))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides at least 32 -> (B, H, W), 0 where they are equal."""
        total = a.new_zeros(len(a), *a.shape[-2:])
        for distance in self.maps(a, b):
            total += F.interpolate(distance[:, None], a.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return total  # (B, H, W)

    @classmethod
    def pretrained(cls) -> "ShiftTolerantLPIPS":
        """With the weights of the wheel. PerceptualError if they are missing or damaged."""
        net = cls()
        net.load(*_packaged("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth"))
        return net.eval()


def published_heads(backbone: Backbone) -> list[Tensor]:
    """The weights of LPIPS for the channels of each stage."""
    return _packaged("torchmetrics", f"functional/image/lpips_models/{backbone}.pth")[1]


def _packaged(package: str, path: str) -> tuple[Mapping[str, Tensor], list[Tensor]]:
    """Tensors by name of a file in an installed package, which is not imported, and the weights of each stage."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PerceptualError(f"LPIPS and ST-LPIPS need {package}: pip install 'retinashift[lpips]'")
    file = Path(spec.submodule_search_locations[0], path)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return state, [state[f"lin{number}.model.1.weight"] for number in range(5)]
    except (OSError, KeyError, RuntimeError) as error:
        raise PerceptualError(
            f"{file} does not hold the weights ({shorten(str(error), 120)}); install {package} again"
        ) from error
