"""UncertaintyHead: from the features of `LightNet` to the scale of the error of each result pixel."""

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

LEAST, MOST = -6.5, 0.0
"""Range of the logarithm of a scale: from 0.4 of 255 levels, about the rounding of an 8-bit picture, to full scale."""


class UncertaintyHead(ModelMixin, ConfigMixin):
    """Two convolutions on what `LightNet.features` returns, apart from the denoiser, whose weights stay as they are.

    There is one scale for each of the factor**2 result pixels of an input pixel.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(self, width: int = 96, hidden: int = 64, factor: int = 4):
        super().__init__()
        self.read = nn.Conv2d(width, hidden, 3, padding=1)
        self.write = nn.Conv2d(hidden, factor**2, 3, padding=1)
        nn.init.constant_(self.write.get_parameter("bias"), -5.0)  # 1.7 levels, a usual error

    def forward(self, features: Tensor) -> Tensor:
        """Logarithm of the scale in shares of full scale, (B, width, h, w) -> (B, factor**2, h, w) float32."""
        return clip_scale(self.write(F.gelu(self.read(features))))


def clip_scale(log_scale: Tensor) -> Tensor:
    """Logarithms of scales in float32, within `LEAST` and `MOST`."""
    return log_scale.float().clamp(LEAST, MOST)
