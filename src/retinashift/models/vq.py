"""VQCodec: diffusers' `VQModel` for large images, with the options of the official autoencoders.

It adds to `VQModel`: a number of residual blocks for each level, attention inside levels, a search for the nearest code
that never holds the matrix of all distances, norms and convolutions in bands of rows, and upsampling in less than half
of the multiplications. Calls and tensor names are those of `VQModel`.

Source: Esser, Rombach, Ommer, "Taming Transformers" (CVPR 2021); Rombach et al., "Latent Diffusion" (CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, DecoderOutput, Encoder, VectorQuantizer
from diffusers.models.autoencoders.vq_model import VQEncoderOutput, VQModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownEncoderBlock2D,
    AttnUpDecoderBlock2D,
    DownEncoderBlock2D,
    UpDecoderBlock2D,
)
from torch import Tensor, nn

from retinashift.models.banded import Upsample, conv_of_norm

DISTANCES = 2**20  # of one chunk of the search: 4 MiB


def nearest_codes(z: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance, (N, C) and (K, C) -> (N,) int64, in float32.

    |z|^2 is the same for all codes and left out. Distances are computed for a few positions at a time.
    """
    z, codes = z.float(), codes.float()
    lengths = codes.square().sum(1)[None]  # (1, K)
    rows = max(1, DISTANCES // len(codes))
    found = [torch.addmm(lengths, part, codes.T, alpha=-2).argmin(1) for part in z.split(rows)]
    return torch.cat(found)


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
        return quantised.permute(0, 3, 1, 2), loss, (None, None, indices)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (B, C, H, W) -> (B, C', H, W); diffusers' names."""

    def __init__(self, channels: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=1e-6)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels != channels_out:
            self.conv_shortcut = nn.Conv2d(channels, channels_out, 1)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """`temb` is not used; diffusers' blocks hand one over. Where no gradient is asked for, x may be overwritten."""
        h = conv_of_norm(x, self.norm1, self.conv1)
        shortcut = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
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
        scaling_factor: kept for diffusers; the chain takes latents as they are.

    Raises ValueError for numbers that do not fit together.

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
    ):
        # not VQModel's, which has one depth for all levels. diffusers looks for the name ModelMixin here when it loads
        ModelMixin.__init__(self)
        widths = list(block_out_channels)
        depths = [layers_per_block] * len(widths) if isinstance(layers_per_block, int) else list(layers_per_block)
        if len(depths) != len(widths):
            raise ValueError(f"layers_per_block has {len(depths)} entries and block_out_channels {len(widths)}")
        if not set(attention_levels) <= set(range(len(widths))):
            raise ValueError(f"attention_levels is {list(attention_levels)}; there are levels 0 to {len(widths) - 1}")
        common = {"block_out_channels": widths, "norm_num_groups": norm_num_groups}
        self.encoder = Encoder(in_channels, latent_channels, down_block_types=(), double_z=False, **common)
        self.decoder = Decoder(latent_channels, out_channels, up_block_types=(), **common)
        for level, depth in enumerate(depths):
            self.encoder.down_blocks.append(self._down(level, depth, widths, level in attention_levels))
        for level in reversed(range(len(widths))):
            self.decoder.up_blocks.append(self._up(level, depths[level] + 1, widths, level in attention_levels))
        self.quant_conv = nn.Conv2d(latent_channels, vq_embed_dim, 1)
        self.quantize = NearestCode(num_vq_embeddings, vq_embed_dim, beta=0.25)
        self.post_quant_conv = nn.Conv2d(vq_embed_dim, latent_channels, 1)
        for module in list(self.modules()):
            if hasattr(module, "resnets"):
                blocks = [ResBlock(r.in_channels, r.out_channels, norm_num_groups) for r in module.resnets]
                module.resnets = nn.ModuleList(blocks)

    def _down(self, level: int, depth: int, widths: list[int], attend: bool) -> nn.Module:
        kind, more = (
            (AttnDownEncoderBlock2D, {"attention_head_dim": widths[level]}) if attend else (DownEncoderBlock2D, {})
        )
        return kind(
            in_channels=widths[max(0, level - 1)],
            out_channels=widths[level],
            num_layers=depth,
            resnet_groups=self.config.norm_num_groups,
            add_downsample=level < len(widths) - 1,
            downsample_padding=0,  # the block itself pads, on the right and below only
            **more,
        )

    def _up(self, level: int, depth: int, widths: list[int], attend: bool) -> nn.Module:
        kind, more = (AttnUpDecoderBlock2D, {"attention_head_dim": widths[level]}) if attend else (UpDecoderBlock2D, {})
        block = kind(
            in_channels=widths[min(len(widths) - 1, level + 1)],
            out_channels=widths[level],
            num_layers=depth,
            resnet_groups=self.config.norm_num_groups,
            add_upsample=level > 0,
            **more,
        )
        if level > 0:
            block.upsamplers = nn.ModuleList([Upsample(widths[level])])
        return block

    def encode(self, x: Tensor, return_dict: bool = True) -> VQEncoderOutput | tuple[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> the latent (B, C, H/f, W/f), not quantised."""
        latents = self.quant_conv(self.encoder(x.contiguous()))  # a picture's channels may lie innermost
        return VQEncoderOutput(latents=latents) if return_dict else (latents,)

    def decode(
        self, h: Tensor, force_not_quantize: bool = False, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor, Tensor]:
        """(B, C, h, w) -> image (B, 3, H, W), quantised first; and the codebook loss."""
        loss = torch.zeros((), device=h.device, dtype=h.dtype)
        if not force_not_quantize:
            h, loss, _ = self.quantize(h)
        image = self.decoder(self.post_quant_conv(h.contiguous()))
        return DecoderOutput(sample=image, commit_loss=loss) if return_dict else (image, loss)
