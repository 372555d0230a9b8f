"""What the pipeline returns, and how it is saved with the record of what made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from PIL import Image

from retinashift.imaging.files import write_image
from retinashift.imaging.provenance import Provenance


@dataclass
class SRResult(BaseOutput):
    """`images`: one per input, of the size that was asked for, in the form that `output_type` names.

    `consistency`: of each, the PSNR in dB between the input and the image reduced again; inf where they are equal.
    `sigma`: of each, the standard deviation of its values, (H, W) float32 in shares of full scale, where it was asked
    for: in 90 % of values, the truth lies within 1.645 sigma. Where the self-check returned the estimate to bicubic,
    sigma is at least their difference. See `uncertainty`.
    `bicubic_share`: of each, the share of its field of view, or of a frame without one, that the self-check returned
    to bicubic, 0 to 1; see `self_check`.
    `detail_factor`: of each, what its detail was multiplied by because of the sharpness of the input; see `detail`.
    """

    images: list[Any]
    consistency: list[float]
    bicubic_share: list[float]
    sigma: list[np.ndarray] | None = None
    detail_factor: list[float] = field(default_factory=list)
    account: Callable[[int], Provenance] | None = None
    """The provenance record of the image of a number, but for what `measured` adds."""

    def measured(self, record: Provenance, number: int = 0) -> Provenance:
        """A record with what was measured of the image of a number."""
        decibel = self.consistency[number]
        return replace(
            record,
            consistency_db=None if decibel == float("inf") else round(decibel, 2),
            bicubic_share=self.bicubic_share[number],
            detail_factor=self.detail_factor[number],
        )

    def save(self, path: str | Path, number: int = 0, *, overwrite: bool = False) -> None:
        """Write an image with its provenance record, as the command does; the suffix decides the format.

        Args:
            path: in a folder that exists; PNG and TIFF lose nothing.
            number: of the image, from 0.
            overwrite: replace a file that exists.

        Raises:
            ValueError: the image is not of 8 or 16 bit.
            ImageError: the file exists, its folder does not, or the format cannot hold the image.
        """
        image = self.images[number]
        kind = "uint8" if isinstance(image, Image.Image) else str(image.dtype)
        if kind not in ("uint8", "uint16"):
            raise ValueError(f"image {number} is {kind}; upscale a picture of 8 or 16 bit, as output_type np or pil")
        record = self.measured(self.account(number), number) if self.account else None
        write_image(path, np.asarray(image), overwrite=overwrite, provenance=record)
