"""What the viewer draws: lossless PNG files beside the result, and the figures against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retinashift.evaluation.similarity import psnr_rgb, ssim_y
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.files import read_image, write_image
from retinashift.imaging.fundus import field_of_view

LEVELS_PER_GREY = 8
"""Maps are stored as 8-bit PNG, eight levels to a grey level: up to 31.9."""


def write_views(
    folder: Path, lr: np.ndarray, sr: np.ndarray, scale: int, sigma: np.ndarray | None, reference: Path | None
) -> dict[str, Any]:
    """Write input.png, bicubic.png, result.png and, where there are any, uncertainty.png, reference.png, error.png.

    Args:
        folder: exists.
        lr, sr: pixels of the input and the result, with any depth, channels and alpha.
        sigma: (H, W), in shares of full scale.
        reference: a photograph as large as the result, not resized; the figures are at 8 bit.

    Returns:
        {"layers": [names], "size": [W, H], "quality": {...} or {"error": ...} or None}
    """
    small, large = as_shown(lr), as_shown(sr)
    layers = {"input": small, "bicubic": enlarge(small, scale, "bicubic"), "result": large}
    quality: dict[str, Any] | None = None
    if sigma is not None:
        layers["uncertainty"] = _as_map(255 * sigma)
    if reference is not None:
        hr = as_shown(read_image(reference).pixels)
        if hr.shape != large.shape:
            quality = {
                "error": f"the reference is {hr.shape[1]}x{hr.shape[0]}; the result is "
                f"{large.shape[1]}x{large.shape[0]}, and a reference is not resized"
            }
        else:
            eye = field_of_view(hr)
            quality = {
                name: {"psnr": round(psnr_rgb(p, hr, eye), 2), "ssim": round(ssim_y(p, hr, eye), 4)}
                for name, p in (("bicubic", layers["bicubic"]), ("result", large))
                if not np.array_equal(p, hr)
            }
            layers["reference"] = hr
            layers["error"] = _as_map(np.abs(large.astype(np.float32) - hr).mean(-1))
    for name, pixels in layers.items():
        write_image(folder / f"{name}.png", pixels, overwrite=True)
    return {"layers": list(layers), "size": [large.shape[1], large.shape[0]], "quality": quality}


def as_shown(pixels: np.ndarray) -> np.ndarray:
    """8-bit RGB (H, W, 3) for a screen: 16 bit rounded, alpha left out, grey in three channels."""
    if pixels.ndim == 3:
        pixels = pixels[..., :1] if pixels.shape[2] == 2 else pixels[..., :3]
    else:
        pixels = pixels[..., None]
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _as_map(levels: np.ndarray) -> np.ndarray:
    return np.rint(levels * LEVELS_PER_GREY).clip(0, 255).astype(np.uint8)
