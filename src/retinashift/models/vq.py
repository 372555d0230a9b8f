"""VQCodec: diffusers' `VQModel` for large images, with the options of the official autoencoders.

It adds a number of residual blocks for each level, attention inside levels, a search for the nearest code that never
holds all distances, and convolutions in bands of rows. Calls and tensor names are those of `VQModel`.

Source: Esser, Rombach, Ommer, "Taming Transformers" (CVPR 2021); Rombach et al., "Latent Diffusion" (CVPR 2022).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, Encoder, VectorQuantizer
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from retinashift.models.banded import Upsample, conv_of_norm

DISTANCES = 2**20  # of one chunk of the search: 4 MiB


def nearest_codes(z: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance, (N, C) and (K, C) -> (N,) int64, in float32.

    |z|^2 is the same for all codes and left out. Distances are computed for a few positions at a time.
    """
    codes = codes.float()
    lengths = codes.square().sum(1)[None]  # (1, K)
    parts = z.float().split(max(1, DISTANCES // len(codes)))
    return torch.cat([torch.addmm(lengths, part, codes.T, alpha=-2).argmin(1) for part in parts])


class NearestCode(VectorQuantizer):
    """Replace each position of the latent by its nearest code; gradients pass straight through."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """(B, C, h, w) -> the same quantised, the codebook loss, and (None, None, indices (B*h*w,))."""
        positions = z.permute(0, 2, 3, 1)  # (B, h, w, C)
        indices = nearest_codes(positions.detach().reshape(-1, self.vq_embed_dim), self.embedding.weight.detach())
        quantised = self.embedding(indices).view(positions.shape)  # (B, h, w, C)
        # beta weights the other term than in the paper, as in every released autoencoder
        loss = (quantised.detach() - positions).square().mean()
        loss = loss + self.beta * (quantised - positions.detach()).square().mean()
        if torch.is_grad_enabled():
            quantised = positions + (quantised - positions).detach()
        return quantised.permute(0, 3, 1, 2).contiguous(), loss, (None, None, indices)


class ResBlock(ResnetBlock2D):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (B, C, H, W) -> (B, C', H, W), in bands of rows."""

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """`temb` is not used; diffusers' blocks hand one over. Where no gradient is asked for, x may be overwritten."""
        h = conv_of_norm(x, self.norm1, self.conv1)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return conv_of_norm(h, self.norm2, self.conv2, added_to=shortcut)


class VQCodec(VQModel):
    """Autoencoder with a codebook: `encode` does not quantise, `decode` does. Calls are those of diffusers' `VQModel`.

    Args:
        in_channels, out_channels: of the image.
        block_out_channels: widths of the levels, finest first; multiples of `norm_num_groups`.
        layers_per_block: residual blocks of a level, one number or one for each level; the decoder has one more.
        attention_levels: levels with attention after each residual block, 0 the finest. The middle always has it.
        latent_channels, vq_embed_dim: of the latent before and after the 1x1 convolution in front of the codebook.
        num_vq_embeddings: codes.
        scaling_factor, norm_type, lookup_from_codebook: kept for diffusers; the chain takes latents as they are.

    ValueError: numbers that do not fit together.

    >>> codec = VQCodec(block_out_channels=[32, 32], layers_per_block=[1, 2], num_vq_embeddings=8)
    >>> codec.encode(torch.zeros(1, 3, 16, 24)).latents.shape
    torch.Size([1, 3, 8, 12])
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: Sequence[int] = (128, 256, 512),
        layers_per_block: int | Sequence[int] = 2,
        attention_levels: Sequence[int] = (),
        latent_channels: int = 3,
        num_vq_embeddings: int = 8192,
        vq_embed_dim: int = 3,
        norm_num_groups: int = 32,
        scaling_factor: float = 1.0,
        norm_type: Literal["group"] = "group",
        lookup_from_codebook: Literal[False] = False,
    ):
        widths = list(block_out_channels)
        depths = [layers_per_block] * len(widths) if isinstance(layers_per_block, int) else list(layers_per_block)
        if len(depths) != len(widths):
            raise ValueError(f"layers_per_block has {len(depths)} entries and block_out_channels {len(widths)}")
        if not set(attention_levels) <= set(range(len(widths))):
            raise ValueError(f"attention_levels is {list(attention_levels)}; there are levels 0 to {len(widths) - 1}")
        ModelMixin.__init__(self)  # VQModel's own would register its arguments as ours
        down, up = ["DownEncoderBlock2D"] * len(widths), ["UpDecoderBlock2D"] * len(widths)
        for level in attention_levels:
            down[level], up[-1 - level] = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"
        common = {"block_out_channels": widths, "layers_per_block": max(depths), "norm_num_groups": norm_num_groups}
        self.encoder = Encoder(in_channels, latent_channels, tuple(down), double_z=False, **common)
        self.decoder = Decoder(latent_channels, out_channels, tuple(up), **common)
        self.quant_conv = nn.Conv2d(latent_channels, vq_embed_dim, 1)
        self.quantize = NearestCode(num_vq_embeddings, vq_embed_dim, beta=0.25)
        self.post_quant_conv = nn.Conv2d(vq_embed_dim, latent_channels, 1)
        for level, depth in enumerate(depths):
            before, after = self.encoder.down_blocks[level], self.decoder.up_blocks[-1 - level]
            before.resnets, after.resnets = before.resnets[:depth], after.resnets[: depth + 1]
            if level in attention_levels:
                before.attentions, after.attentions = before.attentions[:depth], after.attentions[: depth + 1]
        for module in list(self.modules()):
            if isinstance(module, ResnetBlock2D):
                module.__class__ = ResBlock
            if getattr(module, "upsamplers", None):
                module.upsamplers = nn.ModuleList([Upsample(module.resnets[-1].out_channels)])
