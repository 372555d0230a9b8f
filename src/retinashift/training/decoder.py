"""Fine-tuning the decoder of a learned codec, with encoder and codebook as they are."""

from __future__ import annotations

from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn


class CodecDecoder(nn.Module):
    """What of the codec comes after the codebook; its parameters are the codec's own."""

    def __init__(self, codec: VQModel):
        super().__init__()
        self.post_quant_conv, self.decoder = codec.post_quant_conv, codec.decoder
        self._codec = (codec,)  # in a tuple it is no part of this module
        self.requires_grad_(True)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, h, w), quantised first -> image (B, 3, H, W)."""
        return self._codec[0].decode(latent).sample
