"""ST-LPIPS: a perceptual distance that a shift of a pixel hardly changes. AlexNet with antialiased strides.

Source: Ghildyal, Liu, "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022), arXiv 2207.13686. The weights are the
authors', BSD 2-Clause, inside the wheel `stlpips_pytorch`; nothing of its code is run, which asks for torchvision, cv2
and more, and part of which is under a non-commercial licence.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (3, 64, 192, 384, 256, 256)
KERNELS = (11, 5, 3, 3, 3)
PADDINGS = (2, 2, 1, 1, 1)
SMALLEST = 32
"""Shortest side in pixels that survives three halvings and their windows."""
WEIGHTS = Path("weights") / "vST0.0" / "alex_shift_tolerant.pth"
_CONVOLUTIONS = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
# of the images that AlexNet was trained on, for values in [-1, 1]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class ShiftTolerantLPIPS(nn.Module):
    """The distance as a map; its parameters are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=padding)
            for (a, b), kernel, padding in zip(pairwise(WIDTHS), KERNELS, PADDINGS, strict=True)
        )
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in WIDTHS[1:])
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides at least 32 -> (B, H, W), 0 where they are equal."""
        total = a.new_zeros(len(a), *a.shape[-2:])
        for fa, fb, head in zip(self.features(a), self.features(b), self.heads, strict=True):
            difference = (_unit(fa) - _unit(fb)).square()  # (B, C, h, w)
            distance = torch.einsum("bchw,c->bhw", difference, head)
            total = total + F.interpolate(distance[:, None], a.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return total  # (B, H, W)

    def features(self, image: Tensor) -> list[Tensor]:
        """Five maps, halved three times: the stride follows the blur, and the first blur the convolution."""
        mean, deviation = (image.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        first, second, third, fourth, fifth = self.convolutions
        x = F.relu(_halve(first((image - mean) / deviation)))
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
        """With the weights of the wheel. ValueError, one line, where it is not installed or holds other tensors."""
        spec = find_spec("stlpips_pytorch")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError("ST-LPIPS needs the weights of stlpips_pytorch: pip install 'retinashift[lpips]'")
        path = Path(spec.submodule_search_locations[0]) / WEIGHTS
        net = cls()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, convolution in zip(_CONVOLUTIONS, net.convolutions, strict=True):
                convolution.load_state_dict({part: state[f"net.{name}.{part}"] for part in ("weight", "bias")})
            for number, head in enumerate(net.heads):
                head.copy_(state[f"lin{number}.model.1.weight"].reshape(head.shape))
        except (OSError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ValueError(f"{path} is not the file of stlpips_pytorch 0.0.2 ({reason}); install it again") from error
        return net.eval()


def _halve(x: Tensor) -> Tensor:
    """Binomial blur, then every other pixel; padded by two, so that the map grows by a pixel."""
    kernel = x.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
