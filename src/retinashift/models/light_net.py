"""LightNet: the compact denoiser of the shipped checkpoint, plain residual blocks on the low-resolution grid.

It works on residuals: the noisy state enters as its difference from the bicubic interpolation of the low-resolution
image, and the output is the residual e0 = y0 - x0 (prediction "residual"). The last layer starts at zero, so an
untrained network is bicubic interpolation. There is no normalisation: the detail to be predicted is a few grey levels
beside a signal of 255, and normalising over the picture wipes that scale out.
"""

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput as DenoiserOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinashift.models.codec import upsample_bicubic
from retinashift.models.uncertainty_head import ScaleMap, UncertaintyHead, clip_scale

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """The same layer with all its parameters at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class LightBlock(nn.Module):
    """x + conv(gelu(scale_t * conv(x) + shift_t)), (B, C, H, W) -> the same."""

    def __init__(self, width: int, time_width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.time = zeroed(nn.Linear(time_width, 2 * width))
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
        width, depth: channels of the body, and its residual blocks.
        residual_gain: what residuals in [-1, 1] units are multiplied by inside, so that they have about unit scale.
        image_channels: 3 for colour.
    """

    _repeated_blocks = ("LightBlock",)  # what `compile_repeated_blocks` compiles once for all
    lora_targets = ("conv1", "conv2")  # the convolutions of every block
    kind = "light"
    streams = True
    """Whether rows of its prediction can be computed from rows of its input, see `LightStream`."""

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
        self.write = zeroed(nn.Conv2d(width, state_channels, 3, padding=1))

    def deepen(self, depth: int) -> None:
        """Append residual blocks, drawn from the global generator, that change nothing yet: their last layer is zero.

        ValueError: `depth` is less than there is.
        """
        if depth < len(self.blocks):
            raise ValueError(f"depth is {depth}, less than the {len(self.blocks)} blocks there are")
        for _ in range(depth - len(self.blocks)):
            block = LightBlock(self.config.width, self.config.time_width)
            zeroed(block.conv2)
            self.blocks.append(block)
        self.register_to_config(depth=depth)

    @torch.inference_mode()
    def folded(self, timestep: int) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution of one call: read, two for each block, write.

        The first reads the input and x_t - y0, (width, C + C*f*f, 3, 3). Gate, gains and shifts of time are folded in.
        """
        time, residual_gain = self._time_of(timestep), self.config.residual_gain  # (1, time_width)
        gate = self.state_gate(time)[0, :, None, None, None]  # (width, 1, 1, 1)
        read_state = self.read_state.weight * gate * residual_gain
        layers = [(torch.cat([self.read_lq.weight, read_state], dim=1), self.read_lq.bias)]
        for block in self.blocks:
            assert isinstance(block, LightBlock)
            scale, shift = block.time(time)[0].chunk(2)  # (C,) each
            gain = 1 + scale
            layers.append((block.conv1.weight * gain[:, None, None, None], block.conv1.bias * gain + shift))
            layers.append((block.conv2.weight, block.conv2.bias))
        return [*layers, (self.write.weight / residual_gain, self.write.bias / residual_gain)]

    def _time_of(self, timestep: Tensor | int, batch: int = 1) -> Tensor:
        if not isinstance(timestep, Tensor):
            timestep = torch.full((), timestep, device=self.device)  # unlike tensor(), waits for no device
        timestep = timestep.to(self.device).expand(batch)
        return self.time(get_timestep_embedding(timestep, self.config.width).to(self.dtype))  # (B, time_width)

    def forward(
        self, sample: Tensor, timestep: Tensor | int, lq: Tensor, return_dict: bool = True
    ) -> DenoiserOutput | tuple[Tensor]:
        """Predict the residual e0 = y0 - x0, (B, C*f*f, h, w).

        Args:
            sample: x_t, (B, C*f*f, h, w), a space-to-depth image in [-1, 1] plus noise.
            timestep: step index 0..T-1, (B,) or a number for the whole batch.
            lq: the low-resolution image in [-1, 1], (B, C, h, w).
        """
        residual = self.write(self.features(sample, timestep, lq)) / self.config.residual_gain  # (B, C*f*f, h, w)
        return DenoiserOutput(sample=residual) if return_dict else (residual,)

    def features(self, sample: Tensor, timestep: Tensor | int, lq: Tensor) -> Tensor:
        """What the last layer reads, (B, width, h, w); arguments as in `forward`."""
        factor, gain = self.config.factor, self.config.residual_gain
        if lq.shape[-2:] != sample.shape[-2:]:
            found, must = ("{1}x{0}".format(*x.shape[-2:]) for x in (lq, sample))
            raise ValueError(f"lq is {found} and sample {must}; they must agree")
        y0 = F.pixel_unshuffle(upsample_bicubic(lq, factor), factor)  # (B, C*f*f, h, w)
        time = self._time_of(timestep, sample.shape[0])
        gate = self.state_gate(time)[:, :, None, None]  # (B, width, 1, 1)
        h = self.read_lq(lq) + gate * self.read_state((sample - y0) * gain)  # (B, width, h, w)
        h = h.contiguous(memory_format=torch.channels_last)  # else a processor reorders before and after each layer
        skip = h
        for block in self.blocks:
            h = block(h, time)
        return h + skip


class RowQueue:
    """Rows of a map that wait, first in, first out."""

    def __init__(self) -> None:
        self.pieces: deque[Tensor] = deque()

    def push(self, rows: Tensor) -> None:
        """Append rows, (1, C, n, w)."""
        self.pieces.append(rows)

    def take(self, count: int) -> Tensor:
        """Remove and return the first `count` rows, (1, C, count, w). At least one piece must wait."""
        taken = []
        while count > 0:
            rows = self.pieces.popleft()
            if rows.shape[-2] > count:
                self.pieces.appendleft(rows[..., count:, :])
                rows = rows[..., :count, :]
            taken.append(rows)
            count -= rows.shape[-2]
        return taken[0] if len(taken) == 1 else torch.cat(taken or [self.pieces[0][..., :0, :]], dim=-2)


class _Convolution:
    """A 3x3 convolution with zero padding that receives its rows band by band, and keeps the last two of them."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias
        self._kept: Tensor | None = None  # (1, C, 2, w)
        self._closed = False

    def window(self, rows: Tensor, last: bool) -> Tensor:
        """The rows that earlier ones left and these, (1, C, 2 + n, w), channels last; zeros after the `last`."""
        batch, channels, _, width = rows.shape
        zeros = rows.new_zeros(batch, 1, width, channels).permute(0, 3, 1, 2)
        parts = [zeros if self._kept is None else self._kept, rows, *[zeros] * (last and not self._closed)]
        window = torch.cat([part for part in parts if part.shape[-2]], dim=-2)
        window = window.contiguous(memory_format=torch.channels_last)
        kept, self._closed = window[..., -2:, :], last  # copied into one place, or the heap falls into pieces
        self._kept = kept.clone() if self._kept is None or self._kept.shape != kept.shape else self._kept.copy_(kept)
        return window

    def __call__(self, window: Tensor) -> Tensor:
        """(1, C, n + 2, w) -> (1, C', n, w); n is 0 where a window has fewer than 3 rows."""
        if window.shape[-2] < 3:
            return window.new_empty(1, len(self.weight), 0, window.shape[-1])
        return F.conv2d(window, self.weight, self.bias, padding=(0, 1))


class LightStream:
    """One call of a `LightNet`, rows in and rows out, in memory that does not grow with the picture's height.

    A 3x3 convolution needs one row above and one below each row that it returns. Rows are therefore pushed in from top
    to bottom, each convolution keeps the last two rows of its input, and each layer lags one row behind the layer
    before it. No row is computed twice, so the numbers are those of the whole picture, without borders between bands.

    Args:
        height: rows of the picture.
        most: how many rows a layer returns at a time, at most, beyond those that it is given. After the last row of the
            picture each layer owes one row more than the layer before it; they are computed this many rows at a time.
        uncertainty: a head that reads the same features, and the map that its rows are written into, a row later.
    """

    def __init__(
        self,
        net: LightNet,
        timestep: int,
        height: int,
        most: int = 64,
        uncertainty: tuple[UncertaintyHead, ScaleMap] | None = None,
    ):
        self.height, self.most, self.pushed = height, most, 0
        self.lag = 2 * net.config.depth + 2
        """How many rows the prediction lags behind the rows pushed in."""
        self.read, *layers, self.write = (_Convolution(*layer) for layer in net.folded(timestep))
        self.blocks = list(zip(layers[::2], layers[1::2], strict=True))
        self.skip = RowQueue()
        self.scales = uncertainty[1] if uncertainty else None
        layers_of_head = (uncertainty[0].read, uncertainty[0].write) if uncertainty else ()
        self.head = [_Convolution(layer.weight, layer.bias) for layer in layers_of_head]

    def push(self, deviation: Tensor, lq: Tensor) -> Iterator[Tensor]:
        """Yield the rows of the prediction e0 that can now be computed, (1, C*f*f, n, w), in bands from top to bottom.

        Given are the next rows of x_t - y0, (1, C*f*f, n, w), and of the input in [-1, 1], (1, C, n, w).
        """
        self.pushed += lq.shape[-2]
        given = torch.cat([lq, deviation], dim=1)  # (1, C + C*f*f, n, w)
        last = self.lag + bool(self.head)
        for closing in range(self.most, last + self.most, self.most) if self.pushed == self.height else [0]:
            prediction = self._pass(given, closing)
            if prediction.shape[-2]:
                yield prediction
            given = given[..., :0, :]

    def _pass(self, given: Tensor, closing: int) -> Tensor:
        """`closing`: how many layers, from the first on, get no more rows after these."""
        h = self.read(self.read.window(given, closing > 0))  # (1, width, n, w)
        self.skip.push(h)
        for number, (first, second) in enumerate(self.blocks):  # each a `LightBlock`
            seen = first.window(h, closing > 2 * number + 1)  # (1, width, n + 2, w)
            h = torch.ops.aten.gelu_(first(seen))
            h = second(second.window(h, closing > 2 * number + 2))  # (1, width, n', w)
            end = seen.shape[-2] - (1 if closing > 2 * number + 2 else 2)  # of the place of h in `seen`
            h.add_(seen[..., end - h.shape[-2] : end, :])
        features, ended = h + self.skip.take(h.shape[-2]), closing >= self.lag  # (1, width, n, w)
        if self.scales is not None:
            read, write = self.head
            hidden = torch.ops.aten.gelu_(read(read.window(features, ended)))
            self.scales.write(clip_scale(write(write.window(hidden, closing > self.lag))))
        return self.write(self.write.window(features, ended))  # (1, C*f*f, n, w)
