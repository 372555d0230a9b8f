"""The official inference program, step for step: the tests compare its numbers with the published ones.

It differs from `ResShiftPipeline` where that is better: pictures above a tile size are cut into tiles, each with noise
of its own and averaged without weights, which leaves edges; and noise comes from one source in the order of the calls.
With `torch.Generator().manual_seed(12345)` as that source it is the official program's own noise on a CPU.

Source: ResShift, release v2.0 of the official code, by its description; nothing of it is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from retinashift.diffusion.sampling import sample
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.swin_unet import pad_to_multiple

Draw = Callable[[torch.Size], Tensor]


def drawn_from(generator: torch.Generator) -> Draw:
    """Standard normal noise, float32, on the generator's device."""
    return lambda shape: torch.randn(shape, generator=generator, device=generator.device)


@torch.inference_mode()
def official_upscale(pipeline: ResShiftPipeline, image: Tensor, draw: Draw, tile: int, stride: int) -> Tensor:
    """One picture as the official program upscales it.

    Args:
        pipeline: of an imported checkpoint, with a learned codec and `SwinUNet`.
        image: (1, 3, h, w) in [0, 1].
        draw: makes the noise of a given shape; called T + 1 times for each tile, row by row, the last one for nothing.
        tile, stride: side of the tiles and distance of their corners, in pixels of `image`. The official program has
            512 and 448, 256 and 224, or 64 and 48, each times 4 / scale.

    Returns:
        (1, 3, h*scale, w*scale) in [0, 1].
    """
    given = image * 2 - 1
    height, width = image.shape[-2:]
    scale = pipeline.config.scale
    if max(height, width) <= tile:
        return _sample(pipeline, given, draw) / 2 + 0.5
    total = image.new_zeros(1, 3, height * scale, width * scale)
    count = torch.zeros_like(total)
    for top in tile_starts(height, tile, stride):
        for left in tile_starts(width, tile, stride):
            here = (..., slice(top * scale, (top + tile) * scale), slice(left * scale, (left + tile) * scale))
            total[here] += _sample(pipeline, given[..., top : top + tile, left : left + tile], draw)
            count[here] += 1
    return total / count / 2 + 0.5


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles begin: every `stride`, and the last one where it still fits.

    >>> tile_starts(100, 64, 48), tile_starts(40, 64, 48)
    ([0, 36], [0])
    """
    last = max(0, length - tile)
    return sorted({min(start, last) for start in range(0, length, stride)})


def _sample(pipeline: ResShiftPipeline, given: Tensor, draw: Draw) -> Tensor:
    """The image, (1, 3, h, w) in [-1, 1], through the whole chain: (1, 3, h*scale, w*scale), clamped."""
    net, scale = pipeline.denoiser, pipeline.config.scale
    height, width = given.shape[-2:]
    lq = pad_to_multiple(given, net.size_multiple * net.lq_ratio)
    y0 = pipeline.codec.encode(upsample_bicubic(lq, scale, "torch")).latents  # (1, C, h', w')
    pipeline.scheduler.set_timesteps(pipeline.config.default_steps)
    *_, (x0, _) = run_chain(pipeline, y0, lq, draw)
    return pipeline.codec.decode(x0).sample[..., : height * scale, : width * scale].clamp(-1, 1)


def run_chain(pipeline: ResShiftPipeline, y0: Tensor, lq: Tensor, draw: Draw) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (x_{t-1}, x0) after each step from y0 on, all (B, C, h, w).

    Args:
        lq: the condition in [-1, 1], see `SwinUNet.forward`.
        draw: T + 1 draws, see `official_upscale`.
    """
    net = pipeline.denoiser
    yield from sample(pipeline.scheduler, lambda x, t: net(x, t, lq).sample, y0, lambda number: draw(y0.shape).to(y0))
