"""One photograph, from the bytes of its file to the bytes of its results, in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from retinashift.batch.jobs import figure_of, maps_of, sidecar_of
from retinashift.batch.places import Place
from retinashift.batch.record import make_sidecar
from retinashift.imaging.degradation.bicubic import resize
from retinashift.imaging.dicom.deidentify import deidentify
from retinashift.imaging.dicom.parametric import encode_with_map
from retinashift.imaging.figures.comparison import compared
from retinashift.imaging.figures.uncertainty import encode_map, overlay
from retinashift.imaging.files import (
    MAX_PIXELS,
    ImageError,
    Photograph,
    check_target,
    decode_image,
    encode_image,
    format_of,
    with_metadata,
)
from retinashift.imaging.formats.png import encode_png
from retinashift.imaging.provenance import Provenance, digest
from retinashift.inference.advice import Condition, measure_condition, quality_of_jpeg
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import make_record, plain_number
from retinashift.inference.settings import Sampling

logger = logging.getLogger(__name__)

MEANING = "1.645 of it on each side covers 90 % of values"
"""What an uncertainty map means; DICOM allows 64 characters."""
CAPTION = "standard deviation in levels of 255"


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """How one photograph is read, sampled and encoded."""

    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    """Every photograph starts from it, so its result does not depend on the others of a run."""
    page: int | None = None
    """Page (DICOM: frame) of files with several, from 1; None refuses such files."""
    max_pixels: int = MAX_PIXELS
    """Limit of width x height of an input."""
    deidentify: bool = False
    """Remove the person from DICOM headers; files of other formats are then refused."""
    quality: int | None = None
    """Of JPEG results, 1 to 100; None is the encoder's own. Results of other formats lose nothing."""
    figure: bool = False
    """Draw a figure of the input beside the result."""
    sidecar: bool = False
    """Write the provenance record into a JSON file beside the result."""

    def quality_for(self, target: Place) -> int | None:
        """The quality, where the target's format has one."""
        return self.quality if format_of(Path(target.name)) == "JPEG" else None


@dataclass(frozen=True)
class Source:
    """A photograph that was read, and the record of its result but for the consistency."""

    path: str
    """What messages call it."""
    name: str
    """Its file name."""
    photograph: Photograph
    record: Provenance
    condition: Condition


@dataclass(frozen=True)
class Upscaled:
    """A result in memory.

    `pixels` are (H, W) or (H, W, C) in the depth and channels of the source. `sigma` is None, or the standard deviation
    of each pixel, (H, W) float32 as a share of full scale.
    """

    source: Source
    target: Place
    """The result's file name; its suffix is its format."""
    pixels: np.ndarray
    record: Provenance
    sigma: np.ndarray | None
    options: ResultOptions
    meaning: ClassVar[str] = MEANING

    def files(self) -> Iterator[tuple[Place, bytes]]:
        """Path and bytes of each file, encoded one by one in the order in which they must be written.

        The maps come before the result: a result that is there says that its maps are complete.

        Raises:
            ImageError: the format cannot hold the result.
        """
        record, photograph, sigma = self.record, self.source.photograph, self.sigma
        objects: list[bytes] = []
        name = str(self.target)
        if sigma is not None and self.target.suffix.lower() == ".dcm":
            derived = with_metadata(name, self.pixels, like=photograph, scale=record.scale, provenance=record)
            result, parametric = encode_with_map(derived, sigma, MEANING)
            objects.append(parametric)
        else:
            result = encode_image(
                name, self.pixels, like=photograph, scale=record.scale, provenance=record,
                quality=self.options.quality_for(self.target),
            )  # fmt: skip
        if sigma is not None:
            account = {"meaning": MEANING, "provenance": json.loads(record.line())}
            numbers, picture, *others = maps_of(self.target)
            yield numbers, encode_map(sigma, account, record.line())
            yield from zip(others, objects, strict=True)
            yield picture, self._png(overlay(self.pixels, sigma, CAPTION))
        yield self.target, result
        if self.options.sidecar:
            yield sidecar_of(self.target), make_sidecar(self.source.name, self.target.name, result, record)
        if self.options.figure:
            mode = self.options.sampling.mode or f"{record.steps} step{'s' if record.steps > 1 else ''}"
            made = mode if record.seed is None else f"{mode}, seed {record.seed}"
            drawn = compared(photograph.pixels, self.pixels, caption=made, sigma=sigma)
            yield figure_of(self.target), self._png(drawn)

    def _png(self, drawn: np.ndarray) -> bytes:
        return encode_png(Photograph(drawn, provenance=self.record.line()))


def upscale_bytes(
    pipeline: ResShiftPipeline,
    data: bytes,
    name: str,
    target: Place,
    options: ResultOptions | None = None,
    progress: Callable[[float], None] | None = None,
) -> Upscaled:
    """The result of a photograph's file, in memory; `Upscaled.files` encodes what the command line would write.

    Args:
        pipeline: of a checkpoint.
        data: the file.
        name: path or name of the file, for messages; the sidecar has it without its folder.
        target: name of the result's file; nothing is written there.
        options: defaults to `ResultOptions()`.
        progress: called with the share of the sampling that is done, 0..1; what it raises ends the work.

    Raises:
        ImageError: the file cannot be read, or the target's format cannot hold the result.
        ValueError: settings that the checkpoint does not allow.
    """
    options = options or ResultOptions()
    record = make_record(pipeline, options.sampling, options.seed, options.page, options.deidentify)
    return upscale_source(pipeline, read_source(data, name, target, record, options), target, options, progress)


def read_source(data: bytes, path: str | Place, target: Place, record: Provenance, options: ResultOptions) -> Source:
    """Decode a file and check that `target` can hold its result.

    Args:
        data: the file.
        path: what errors call it.
        target: path of the result.
        record: of the run.
        options: see `ResultOptions`.

    Raises:
        ImageError: it cannot be read, or not as the options say.
    """
    photograph = decode_image(data, str(path), options.max_pixels, options.page)
    derived = photograph.record is not None
    if derived:
        logger.warning("%s is a result of super-resolution itself", path)
    quality = options.quality_for(target)
    if options.sampling.longest_side is not None:
        height, width = photograph.pixels.shape[:2]
        options.sampling.size_of(height, width, int(record.scale))
        record = replace(record, scale=plain_number(options.sampling.longest_side / max(height, width)))
    check_target(str(target), photograph, record.scale, quality)
    if options.deidentify:
        if photograph.dicom is None:
            raise ImageError(f"{path} is {photograph.format}; --deidentify is for DICOM, run the others without it")
        try:
            photograph = replace(photograph, dicom=deidentify(photograph.dicom))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
    record = replace(record, input=digest(data), input_was_super_resolved=derived)
    if quality is not None:
        record = replace(record, options={**record.options, "quality": quality})
    condition = measure_condition(photograph.pixels, quality_of_jpeg(data))
    return Source(str(path), Path(path).name if isinstance(path, str) else path.name, photograph, record, condition)


def upscale_source(
    pipeline: ResShiftPipeline,
    source: Source,
    target: Place,
    options: ResultOptions,
    progress: Callable[[float], None] | None = None,
) -> Upscaled:
    """Sample the result of a photograph that was read; arguments as in `upscale_bytes`."""
    if warning := source.condition.warning(restores=pipeline.config.check_measure == "burst"):
        logger.warning("%s: %s", source.path, warning)
    colour, alpha = _split_alpha(source.photograph)
    result = pipeline(
        colour,
        generator=torch.Generator().manual_seed(options.seed),
        progress=progress,
        **vars(options.sampling),
    )
    pixels, consistency = result.images[0], result.consistency[0]
    if alpha is not None:  # a mask is geometry, not retina: it is interpolated
        size = pixels.shape[0], pixels.shape[1]
        pixels = np.dstack([pixels, resize(alpha, size, "bicubic")])
    record = replace(
        source.record,
        consistency_db=None if consistency == float("inf") else round(consistency, 2),
        bicubic_share=result.bicubic_share[0],
        detail_factor=result.detail_factor[0],
    )
    if record.bicubic_share:
        logger.warning("%s: %s, where the network's estimate contradicted it", source.path, record.returned())
    sigma = result.sigma[0] if result.sigma else None
    return Upscaled(source, target, pixels, record, sigma, options)


def _split_alpha(photograph: Photograph) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour as (H, W) or (H, W, 3), and the alpha channel (H, W) if there is one."""
    pixels = photograph.pixels
    if not photograph.has_alpha:
        return pixels, None
    colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    return np.ascontiguousarray(colour), np.ascontiguousarray(pixels[..., -1])
