"""LPIPS with VGG16: how different two images look to a network that was trained to name what is in photographs.

Source: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(CVPR 2018), version 0.1. The weights are other people's: the features of VGG16 as torchvision publishes them, and the
linear heads that come with torchmetrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
VGG_FILE = "vgg16-397923af.pth"
VGG_URL = f"https://download.pytorch.org/models/{VGG_FILE}"
# of the images that VGG16 was trained on, for values in [-1, 1]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPSError(ValueError):
    """The weights of LPIPS cannot be had, said in one line."""


class LPIPS(nn.Module):
    """The distance; its parameters are frozen, and gradients flow to the images."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))) for widths in STAGES
        )
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(widths[-1])) for widths in STAGES)
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides at least 16 -> (B,), 0 for equal ones."""
        both = torch.cat([a, b])
        x = (both - both.new_tensor(MEAN).view(3, 1, 1)) / both.new_tensor(DEVIATION).view(3, 1, 1)
        total = x.new_zeros(len(a))
        for number, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            if number:
                x = F.max_pool2d(x, 2)
            for convolution in stage.children():
                x = F.relu(convolution(x))  # (2B, C, h, w)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            difference = (unit[: len(a)] - unit[len(a) :]).square()  # (B, C, h, w)
            total = total + torch.einsum("bchw,c->bhw", difference, head).mean((1, 2))
        return total  # (B,)

    @classmethod
    def pretrained(cls) -> LPIPS:
        """With the published weights: VGG16's from torch's cache, or downloaded to it; LPIPSError if they cannot be."""
        net = cls()
        net.load_vgg(_vgg_weights())
        net.load_heads(_heads())
        return net.eval()

    def load_vgg(self, state: Mapping[str, Tensor]) -> None:
        """Features of torchvision's VGG16, "features.N.weight" and "features.N.bias"."""
        names = [name.removesuffix(".weight") for name in state if name.startswith("features.") and "weight" in name]
        names.sort(key=lambda name: int(name.split(".")[1]))
        convolutions = [convolution for stage in self.stages for convolution in stage.children()]
        for name, convolution in zip(names, convolutions, strict=True):
            convolution.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})

    def load_heads(self, heads: list[Tensor]) -> None:
        """One weight for each channel of each stage."""
        for head, values in zip(self.heads, heads, strict=True):
            head.data.copy_(values.flatten())


def _vgg_weights() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(VGG_URL, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # no network, no disk, a damaged file
        where = Path(torch.hub.get_dir()) / "checkpoints"
        raise LPIPSError(
            f"LPIPS needs the weights of VGG16, which could not be downloaded ({' '.join(str(error).split())[:120]}); "
            f"put {VGG_FILE} into {where}, or set loss.lpips to 0"
        ) from error


def _heads() -> list[Tensor]:
    try:
        import torchmetrics
    except ImportError:
        raise LPIPSError("LPIPS needs torchmetrics: pip install 'retinashift[lpips]'") from None
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return [state[f"lin{i}.model.1.weight"] for i in range(len(STAGES))]
    except (OSError, KeyError) as error:
        raise LPIPSError(f"torchmetrics {torchmetrics.__version__} brings no heads of LPIPS at {path}") from error
