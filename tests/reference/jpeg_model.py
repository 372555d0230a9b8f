"""What JPEG does to a picture, in torch and on any device: colour, subsampling, transform, rounding, and back.

It makes no file: entropy coding loses nothing and is left out. Libraries differ from it in the last bits, as they
compute in integers and smooth the colours when they enlarge them.

Source: ITU-T T.81, annexes A and K; ITU-T T.871 for the colours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# annex K, tables K.1 and K.2; rows: vertical frequency
LUMA_TABLE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
CHROMA_TABLE = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]  # the rest is 99

TO_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
TO_RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]


def jpeg_round_trip(image: Tensor, quality: Tensor | float, transposed: bool = False) -> Tensor:
    """Compress and decompress with 4:2:0 colours.

    Args:
        image: (B, 3, H, W) in [0, 1].
        quality: 1..100, one number or (B,), with the meaning libjpeg gives it.
        transposed: exchange rows and columns of the luma table, as DiffJPEG does, and so the training data of
            Real-ESRGAN and of the official ResShift. Files have it as in the standard.

    Returns:
        (B, 3, H, W) in [0, 1], not rounded to 8 bit.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % 16, 0, -height % 16))  # with black, to whole blocks of half the resolution
    factor = _table_factor(torch.as_tensor(quality, device=image.device, dtype=image.dtype)).view(-1, 1, 1, 1)
    ycbcr = torch.einsum("oc,bchw->bohw", image.new_tensor(TO_YCBCR), padded * 255)  # colours around 0
    luma_table = _table(LUMA_TABLE, image)
    luma = _quantised(ycbcr[:, :1] - 128, luma_table.T if transposed else luma_table, factor) + 128
    chroma = _quantised(F.avg_pool2d(ycbcr[:, 1:], 2), _table(CHROMA_TABLE, image), factor)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="nearest")
    rgb = torch.einsum("oc,bchw->bohw", image.new_tensor(TO_RGB), torch.cat([luma, chroma], dim=1))
    return rgb[..., :height, :width].clamp(0, 255) / 255


def _quantised(planes: Tensor, table: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W) through the transform of 8x8 blocks, rounded to steps of table * factor, and back."""
    batch, channels, height, width = planes.shape
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)  # (..., 8, 8)
    transform = _cosines(planes)
    step = (table * factor)[:, :, None, None]  # (B, 1, 1, 1, 8, 8)
    levels = (transform @ blocks @ transform.T / step).round()
    blocks = transform.T @ (levels * step) @ transform
    return blocks.transpose(3, 4).reshape(batch, channels, height, width)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of 8 values, (frequency, position)."""
    u, x = torch.arange(8)[:, None], torch.arange(8)[None]
    rows = torch.cos((2 * x + 1) * u * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows.to(like)


def _table(rows: list[list[int]], like: Tensor) -> Tensor:
    table = torch.full((8, 8), 99.0)
    table[: len(rows), : len(rows)] = torch.tensor(rows, dtype=torch.float32)
    return table.to(like)


def _table_factor(quality: Tensor) -> Tensor:
    return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
