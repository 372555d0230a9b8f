"""SwinUNet: the denoiser of ResShift, a U-Net of residual blocks with windowed attention at every level.

After Yue, Wang, Loy, "ResShift" (NeurIPS 2023; TPAMI 2024): residual blocks as in ADM (Dhariwal, Nichol 2021),
attention as in Swin (Liu et al. 2021) with group norms. Parameters have the names of the published checkpoints: their
state dicts load once the derived entries are left out.

Symbols: B batch; C channels; H, W height and width of the state.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput as DenoiserOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinashift.models.banded import Upsample, conv_of_norm
from retinashift.models.light_net import zeroed
from retinashift.models.window_attention import GROUPS, AttentionMask, SwinLayer


def downsample(channels: int, channels_out: int) -> nn.Module:
    """Half the size by a strided convolution: (B, C, H, W) -> (B, C', H/2, W/2)."""
    return nn.Sequential(OrderedDict(op=nn.Conv2d(channels, channels_out, 3, stride=2, padding=1)))


class ResBlock(nn.Module):
    """Residual block modulated by the time: (B, C, H, W) and (B, time_channels) -> (B, C', H, W).

    Args:
        scale_shift: the time scales and shifts the output of the second norm; otherwise it is added before that norm.
        resample: changes the size in both branches, for blocks that stand between levels.
    """

    def __init__(
        self,
        channels: int,
        channels_out: int,
        time_channels: int,
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels_out, 3, padding=1)
        )
        self.resample = nn.Identity() if resample is None else resample
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, channels_out * (2 if scale_shift else 1)))
        last = zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))  # an untrained block returns its input
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, channels_out), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip_connection = nn.Identity() if channels == channels_out else nn.Conv2d(channels, channels_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        norm_in, activation, conv_in = self.in_layers
        norm_out, _, dropout, conv_out = self.out_layers
        still = isinstance(self.resample, nn.Identity)
        h = conv_of_norm(x, norm_in, conv_in) if still else conv_in(self.resample(activation(norm_in(x))))
        time = self.emb_layers(time)[:, :, None, None]  # (B, 2*C' or C', 1, 1)
        skip = self.skip_connection(self.resample(x))
        h, modulation = (h, time.chunk(2, dim=1)) if self.scale_shift else (h + time, None)
        if skip is x:  # also kept for the way up, so it must not be overwritten
            return skip + conv_of_norm(h, norm_out, conv_out, modulation, dropout)
        return conv_of_norm(h, norm_out, conv_out, modulation, dropout, added_to=skip)


class Stage(nn.ModuleList):
    """Layers in sequence; residual blocks also take the time embedding."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResBlock) else layer(x)
        return x


def feature_extractor(channels: int, ratio: int) -> tuple[nn.Module, int]:
    """A module from the condition, `ratio` (a power of 2) times as large as the state, to features of the state's size.

    Returns the module and the number of its output channels; at ratio 1 the module is the identity.
    """
    layers: list[nn.Module] = []
    for width in (16 * 2**number for number in range(int(math.log2(ratio)))):
        halve = downsample(width, 2 * width)  # before the other convolution: seeds give the weights they always gave
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), halve]
        channels = 2 * width
    return (nn.Sequential(*layers) if layers else nn.Identity()), channels


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W), extended on the right and below by reflection, or by repetition if x is too small for that."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    return F.pad(x, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")


class SwinUNet(ModelMixin, ConfigMixin):
    """The U-Net of ResShift. The defaults are the published network for x4 super-resolution, 118.6 million parameters.

    The state may have any size: other sizes than multiples of `size_multiple` are padded inside and the output cropped.
    Compile with dynamic=False: with symbolic sizes the inductor takes many minutes.

    Args:
        image_size: side of the state (a latent, or the low-resolution grid) in training.
        in_channels, out_channels: of the state and of the prediction.
        model_channels, channel_mult: their products are the widths of the levels, finest first, multiples of 32.
        num_res_blocks: residual blocks of a level, one number or one for each level.
        attention_resolutions: image_size / 2**level of the levels with attention. The middle always has it.
        num_head_channels: width of a head; -1 to give the number of heads in `num_heads`.
        swin_depth, swin_embed_dim, window_size, mlp_ratio, patch_norm: of the attention, see `SwinLayer`.
        lq_size: side of the condition in training, image_size times a power of 2.
        use_scale_shift_norm, dropout: see `ResBlock`.
        conv_resample: resample between levels with a convolution instead of a plain mean or repetition.
        resblock_updown: resample between levels inside a residual block.
        attention_mask: see `shifted_window_mask`; "official" for published checkpoints.
        zero_init_output: start with an output of zero: bicubic interpolation, if the network predicts the residual.

    Raises ValueError for sizes that do not fit together.

    >>> net = SwinUNet(image_size=8, model_channels=32, channel_mult=[1], num_res_blocks=1, attention_resolutions=[8],
    ...                swin_embed_dim=32, window_size=4, lq_size=8)
    >>> net(torch.randn(2, 3, 10, 13), 3, lq=torch.rand(2, 3, 10, 13) * 2 - 1).sample.shape
    torch.Size([2, 3, 10, 13])
    """

    _supports_gradient_checkpointing = True
    lora_targets = ("qkv", "proj", "fc1", "fc2")  # the linear maps of every attention layer
    kind = "swin"
    streams = False

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        model_channels: int = 160,
        channel_mult: Sequence[int] = (1, 2, 2, 4),
        num_res_blocks: int | Sequence[int] = 2,
        attention_resolutions: Sequence[int] = (64, 32, 16, 8),
        num_head_channels: int = 32,
        num_heads: int = -1,
        swin_depth: int = 2,
        swin_embed_dim: int = 192,
        window_size: int = 8,
        mlp_ratio: float = 4.0,
        patch_norm: bool = False,
        lq_size: int = 64,
        use_scale_shift_norm: bool = True,
        dropout: float = 0.0,
        conv_resample: bool = True,
        resblock_updown: bool = False,
        attention_mask: AttentionMask = "swin",
        zero_init_output: bool = False,
    ):
        super().__init__()
        self.gradient_checkpointing = False  # diffusers' enable_gradient_checkpointing() looks for this name
        self._check_config()
        self.lq_ratio = lq_size // image_size
        time_channels = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        self.feature_extractor, lq_channels = feature_extractor(3, self.lq_ratio)
        self._build_blocks(in_channels + lq_channels)
        width = model_channels * channel_mult[0]
        last = nn.Conv2d(width, out_channels, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), zeroed(last) if zero_init_output else last)

    def _build_blocks(self, channels: int) -> None:
        """The way down, the middle and the way up. `channels`: of state and condition features together."""
        c = self.config
        widths = [c.model_channels * multiple for multiple in c.channel_mult]
        depths = [c.num_res_blocks] * len(widths) if isinstance(c.num_res_blocks, int) else c.num_res_blocks
        last = len(widths) - 1
        width = widths[0]
        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(channels, width, 3, padding=1)])])
        skips = [width]  # widths of the features that are kept for the way up
        for level, depth in enumerate(depths):
            for i in range(depth):
                self.input_blocks.append(self._stage(width, level, attend=i == 0))
                width = widths[level]
                skips.append(width)
            if level < last:
                self.input_blocks.append(Stage([self._resampler(width, up=False)]))
                skips.append(width)

        self.middle_block = Stage(
            [self._res_block(width, width), self._swin_layer(width, last), self._res_block(width, width)]
        )

        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(depths[level] + 1):
                stage = self._stage(width + skips.pop(), level, attend=i == 0)
                width = widths[level]
                if level > 0 and i == depths[level]:
                    stage.append(self._resampler(width, up=True))
                self.output_blocks.append(stage)

    def _check_config(self) -> None:
        c, levels = self.config, len(self.config.channel_mult)

        def need(good: bool, what: str, must: str) -> None:
            if not good:
                raise ValueError(f"{what}; it must {must}")

        good = c.attention_mask in get_args(AttentionMask)
        need(good, f"attention_mask is {c.attention_mask!r}", "be 'swin' or 'official'")
        for name in ("image_size", "window_size", "swin_depth"):
            need(c[name] >= 1, f"{name} is {c[name]}", "be at least 1")
        need(levels >= 1, "channel_mult is empty", "have an entry for each level")
        depths = c.num_res_blocks
        if not isinstance(depths, int):
            need(len(depths) == levels, f"num_res_blocks has {len(depths)} entries", f"have {levels}, as channel_mult")
        widths = [("model_channels * channel_mult", c.model_channels * multiple) for multiple in c.channel_mult]
        for name, width in (*widths, ("swin_embed_dim", c.swin_embed_dim)):
            need(width >= 1 and width % GROUPS == 0, f"{name} is {width}", f"be a multiple of {GROUPS}, as norms need")
        name = "num_heads" if c.num_head_channels == -1 else "num_head_channels"
        good = c[name] >= 1 and c.swin_embed_dim % c[name] == 0
        need(good, f"{name} is {c[name]}", f"divide swin_embed_dim, {c.swin_embed_dim}")
        good = c.lq_size >= c.image_size and math.log2(c.lq_size / c.image_size).is_integer()
        need(good, f"lq_size is {c.lq_size}", f"be image_size, {c.image_size}, times a power of 2")
        must = f"be a multiple of {self.size_multiple} with {levels} levels and window_size {c.window_size}"
        need(c.image_size % self.size_multiple == 0, f"image_size is {c.image_size}", must)
        sizes, given = [c.image_size >> level for level in range(levels)], list(c.attention_resolutions)
        need(set(given) <= set(sizes), f"attention_resolutions is {given}", f"be of the levels' {sizes}")

    @property
    def size_multiple(self) -> int:
        """Sides of the state that are multiples of this divide into whole windows at every level."""
        image_size, last = self.config.image_size, len(self.config.channel_mult) - 1
        attending = {last, *(i for i in range(last) if image_size >> i in self.config.attention_resolutions)}
        return math.lcm(2**last, *(2**i * min(self.config.window_size, max(image_size >> i, 1)) for i in attending))

    def _res_block(self, channels: int, channels_out: int, resample: nn.Module | None = None) -> ResBlock:
        c = self.config
        return ResBlock(channels, channels_out, 4 * c.model_channels, c.dropout, c.use_scale_shift_norm, resample)

    def _swin_layer(self, channels: int, level: int) -> SwinLayer:
        c = self.config
        return SwinLayer(
            channels, c.swin_embed_dim, c.image_size >> level, c.window_size, c.swin_depth,
            c.num_heads if c.num_head_channels == -1 else c.swin_embed_dim // c.num_head_channels,
            c.mlp_ratio, c.patch_norm, c.attention_mask,
        )  # fmt: skip

    def _resampler(self, width: int, up: bool) -> nn.Module:
        plain = nn.Upsample(scale_factor=2.0) if up else nn.AvgPool2d(2)
        if self.config.resblock_updown:
            return self._res_block(width, width, plain)
        learned = Upsample(width) if up else downsample(width, width)
        return learned if self.config.conv_resample else plain

    def _stage(self, channels: int, level: int, attend: bool) -> Stage:
        channels_out = self.config.model_channels * self.config.channel_mult[level]
        stage = Stage([self._res_block(channels, channels_out)])
        if attend and self.config.image_size >> level in self.config.attention_resolutions:
            stage.append(self._swin_layer(channels_out, level))
        return stage

    def forward(
        self, sample: Tensor, timestep: Tensor | int, lq: Tensor, return_dict: bool = True
    ) -> DenoiserOutput | tuple[Tensor]:
        """Predict what the scheduler's prediction type names, (B, out_channels, H, W).

        Args:
            sample: x_t as the scheduler scaled it, (B, in_channels, H, W).
            timestep: step index 0..T-1, (B,) or a number for the whole batch.
            lq: the low-resolution image in [-1, 1], (B, 3, H*r, W*r), r = lq_size / image_size; else ValueError.
        """
        height, width = sample.shape[-2:]
        expected = height * self.lq_ratio, width * self.lq_ratio
        if tuple(lq.shape[-2:]) != expected:
            found, must = ("{1}x{0}".format(*size) for size in (lq.shape[-2:], expected))
            raise ValueError(f"lq is {found}; for a sample of {width}x{height} it must be {must}")
        sample = pad_to_multiple(sample, self.size_multiple)  # (B, in_channels, H', W')
        lq = pad_to_multiple(lq, self.size_multiple * self.lq_ratio)  # (B, 3, H'*r, W'*r)

        if not isinstance(timestep, Tensor):
            timestep = torch.full((), timestep, device=sample.device)  # tensor() would wait for the device
        timestep = timestep.to(sample.device).expand(sample.shape[0])  # (B,)
        frequencies = get_timestep_embedding(
            timestep, self.config.model_channels, flip_sin_to_cos=True, downscale_freq_shift=0
        )  # (B, model_channels), cosines first
        time = self.time_embed(frequencies.to(sample.dtype))  # (B, 4*model_channels)

        h = torch.cat([sample, self.feature_extractor(lq)], dim=1)  # (B, in_channels + features, H', W')
        skips: list[Tensor] = []
        down = len(self.input_blocks)
        for number, stage in enumerate([*self.input_blocks, self.middle_block, *self.output_blocks]):
            if number > down:
                h = torch.cat([h, skips.pop()], dim=1)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                h = self._gradient_checkpointing_func(stage, h, time)
            else:
                for layer in stage:  # not stage(h, time), which would hold its input until it is done
                    h = layer(h, time) if isinstance(layer, ResBlock) else layer(h)
            if number < down:
                skips.append(h)
        prediction = self.out(h)[..., :height, :width]  # (B, out_channels, H, W)
        return DenoiserOutput(sample=prediction) if return_dict else (prediction,)

    @property
    def bytes_per_position(self) -> int:
        """Bytes that one call holds for each position of the state: measured, realsr v3 at 64, 128 and 256 pixels."""
        return 45 * self.config.model_channels * self.config.channel_mult[0] * self.dtype.itemsize // 4
