"""LightNet: the compact denoiser of the shipped checkpoint, plain residual blocks on the low-resolution grid.

It works on residuals: the noisy state enters as its difference from the bicubic interpolation of the low-resolution
image, and the output is the residual e0 = y0 - x0 (prediction "residual"). The last layer starts at zero, so an
untrained network is bicubic interpolation. There is no normalisation: the detail to be predicted is a few grey levels
beside a signal of 255, and normalising over the picture wipes that scale out.
"""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput as DenoiserOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinashift.models.codec import upsample_bicubic


class LightBlock(nn.Module):
    """x + conv(gelu(scale_t * conv(x) + shift_t)), (B, C, H, W) -> the same."""

    def __init__(self, width: int, time_width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)  # a deep stack without normalisation starts near the identity

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        h = self.conv1(x)
        if torch.is_grad_enabled():
            return x + self.conv2(F.gelu(torch.addcmul(shift, h, 1 + scale)))
        h = torch.ops.aten.gelu_(h.mul_(1 + scale).add_(shift))  # in place: half the memory, and no time lost to it
        return self.conv2(h).add_(x)


class LightNet(ModelMixin, ConfigMixin):
    """Compact denoiser on the grid of the low-resolution image, for `PixelCodec` of the same factor.

    Args:
        factor: scale factor; the state has image_channels * factor**2 channels.
        width: channels of the body.
        depth: residual blocks.
        residual_gain: what residuals in [-1, 1] units are multiplied by inside, so that they have about unit scale.
        image_channels: 3 for colour.
    """

    _supports_gradient_checkpointing = False
    _repeated_blocks = ("LightBlock",)  # what `compile_repeated_blocks` compiles once for all
    lora_targets = ("conv1", "conv2")  # the convolutions of every block
    kind = "light"
    streams = True
    """Whether rows of its prediction can be computed from rows of its input, see `light_stream`."""

    @register_to_config
    def __init__(
        self,
        factor: int = 4,
        width: int = 64,
        depth: int = 14,
        residual_gain: float = 16.0,
        image_channels: int = 3,
        time_width: int = 128,
    ):
        super().__init__()
        state_channels = image_channels * factor**2
        self.time = nn.Sequential(nn.Linear(width, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU())
        self.read_lq = nn.Conv2d(image_channels, width, 3, padding=1)
        self.read_state = nn.Conv2d(state_channels, width, 3, padding=1, bias=False)
        self.state_gate = nn.Linear(time_width, width)  # at the last step the state is noise: let the network shut it
        nn.init.zeros_(self.state_gate.weight)
        nn.init.ones_(self.state_gate.bias)
        self.blocks = nn.ModuleList(LightBlock(width, time_width) for _ in range(depth))
        self.write = nn.Conv2d(width, state_channels, 3, padding=1)
        for parameter in self.write.parameters():
            nn.init.zeros_(parameter)

    def deepen(self, depth: int) -> None:
        """Append residual blocks, drawn from the global generator, that change nothing yet: their last layer is zero.

        Raises:
            ValueError: `depth` is less than there is.
        """
        if depth < len(self.blocks):
            raise ValueError(f"depth is {depth}, less than the {len(self.blocks)} blocks there are")
        for _ in range(depth - len(self.blocks)):
            block = LightBlock(self.config.width, self.config.time_width)
            nn.init.zeros_(block.conv2.weight)
            if block.conv2.bias is not None:
                nn.init.zeros_(block.conv2.bias)
            self.blocks.append(block)
        self.register_to_config(depth=depth)

    @torch.inference_mode()
    def folded(self, timestep: int) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution of one call at x_t = y0, where the state enters as zero.

        The time embedding's gains and shifts are folded in, and the residual's gain is divided out. The order is that
        of the call: read, two for each block, write.
        """
        time = self._time_of(timestep)  # (1, time_width)
        layers = [(self.read_lq.weight, self.read_lq.bias)]
        for block in self.blocks:
            assert isinstance(block, LightBlock)
            scale, shift = block.time(time)[0].chunk(2)  # (C,) each
            gain = 1 + scale
            layers.append((block.conv1.weight * gain[:, None, None, None], block.conv1.bias * gain + shift))
            layers.append((block.conv2.weight, block.conv2.bias))
        return [*layers, (self.write.weight / self.config.residual_gain, self.write.bias / self.config.residual_gain)]

    @torch.inference_mode()
    def folded_state(self, timestep: int) -> Tensor:
        """Weight of the convolution that reads x_t - y0 in one call, (width, C*f*f, 3, 3); gate and gain are in it."""
        gate = self.state_gate(self._time_of(timestep))[0, :, None, None, None]  # (width, 1, 1, 1)
        return self.read_state.weight * gate * self.config.residual_gain

    def _time_of(self, timestep: Tensor | int, batch: int = 1) -> Tensor:
        if not isinstance(timestep, Tensor):
            timestep = torch.full((), timestep, device=self.device)  # unlike tensor(), waits for no device
        timestep = timestep.to(self.device).expand(batch)
        return self.time(get_timestep_embedding(timestep, self.config.width).to(self.dtype))  # (B, time_width)

    def forward(
        self, sample: Tensor, timestep: Tensor | int, lq: Tensor, return_dict: bool = True
    ) -> DenoiserOutput | tuple[Tensor]:
        """Predict the residual e0 = y0 - x0.

        Args:
            sample: x_t, (B, C*f*f, h, w), a space-to-depth image in [-1, 1] plus noise.
            timestep: step index 0..T-1, (B,) or a number for the whole batch.
            lq: the low-resolution image in [-1, 1], (B, C, h, w).
        """
        residual = self.residual(self.features(sample, timestep, lq))  # (B, C*f*f, h, w)
        return DenoiserOutput(sample=residual) if return_dict else (residual,)

    def features(self, sample: Tensor, timestep: Tensor | int, lq: Tensor) -> Tensor:
        """What the last layer reads, (B, width, h, w); arguments as in `forward`."""
        factor, gain = self.config.factor, self.config.residual_gain
        if lq.shape[-2:] != sample.shape[-2:]:
            raise ValueError(
                f"lq is {lq.shape[-1]}x{lq.shape[-2]} and sample {sample.shape[-1]}x{sample.shape[-2]}; they must agree"
            )
        y0 = F.pixel_unshuffle(upsample_bicubic(lq, factor), factor)  # (B, C*f*f, h, w)
        time = self._time_of(timestep, sample.shape[0])
        gate = self.state_gate(time)[:, :, None, None]  # (B, width, 1, 1)
        h = self.read_lq(lq) + gate * self.read_state((sample - y0) * gain)  # (B, width, h, w)
        h = h.contiguous(memory_format=torch.channels_last)  # else a processor reorders before and after each layer
        skip = h
        for block in self.blocks:
            h = block(h, time)
        return h + skip

    def residual(self, features: Tensor) -> Tensor:
        """The last layer: e0 from `features`, (B, width, h, w) -> (B, C*f*f, h, w)."""
        return self.write(features) / self.config.residual_gain
