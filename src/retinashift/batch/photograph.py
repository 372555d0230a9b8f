"""One photograph, from the bytes of its file to the bytes of its results, in memory."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinashift.batch.jobs import BatchOptions, figure_of, maps_of, sidecar_of
from retinashift.batch.places import Place
from retinashift.batch.record import for_input, make_sidecar, run_record
from retinashift.imaging.degradation.bicubic import resize
from retinashift.imaging.dicom.derived import deidentify
from retinashift.imaging.dicom.parametric import encode_with_map
from retinashift.imaging.figures import compared, encode_map, overlay
from retinashift.imaging.files import check_target, decode_image, encode_image, with_metadata
from retinashift.imaging.formats.png import encode_png
from retinashift.imaging.photograph import ImageError, Photograph, naming
from retinashift.imaging.provenance import Provenance
from retinashift.inference.advice import measure_condition, quality_of_jpeg
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import plain_number

logger = logging.getLogger(__name__)

MEANING = "1.645 of it on each side covers 90 % of values"
"""What an uncertainty map means; DICOM allows 64 characters."""
CAPTION = "standard deviation in levels of 255"


@dataclass(frozen=True)
class Upscaled:
    """A result in memory.

    `pixels` are (H, W) or (H, W, C) in the depth and channels of the source. `sigma` is None, or the standard deviation
    of each pixel, (H, W) float32 as a share of full scale.
    """

    source: str | Place
    """What messages call the file that was read."""
    photograph: Photograph
    """As it was read."""
    target: Place
    """The result's file name; its suffix is its format."""
    pixels: np.ndarray
    record: Provenance
    sigma: np.ndarray | None
    options: BatchOptions

    def files(self) -> Iterator[tuple[Place, bytes]]:
        """Path and bytes of each file, encoded one by one in the order in which they must be written.

        The maps come before the result: a result that is there says that its maps are complete.

        Raises:
            ImageError: the format cannot hold the result.
        """
        record, photograph, sigma = self.record, self.photograph, self.sigma
        name, objects = str(self.target), list[bytes]()
        kept: dict[str, Any] = {"like": photograph, "scale": record.scale, "provenance": record}
        if sigma is not None and self.target.suffix.lower() == ".dcm":
            result, parametric = encode_with_map(with_metadata(name, self.pixels, **kept), sigma, MEANING)
            objects.append(parametric)
        else:
            result = encode_image(name, self.pixels, quality=self.options.quality_for(self.target), **kept)
        if sigma is not None:
            account = {"meaning": MEANING, "provenance": json.loads(record.line())}
            numbers, picture, *others = maps_of(self.target)
            yield numbers, encode_map(sigma, account, record.line())
            yield from zip(others, objects, strict=True)
            yield picture, self._png(overlay(self.pixels, sigma, CAPTION))
        yield self.target, result
        if self.options.sidecar:
            source = Path(self.source).name if isinstance(self.source, str) else self.source.name
            yield sidecar_of(self.target), make_sidecar(source, self.target.name, result, record)
        if self.options.figure:
            mode = self.options.sampling.mode or f"{record.steps} step{'s' if record.steps > 1 else ''}"
            made = mode if record.seed is None else f"{mode}, seed {record.seed}"
            yield figure_of(self.target), self._png(compared(photograph.pixels, self.pixels, caption=made, sigma=sigma))

    def _png(self, drawn: np.ndarray) -> bytes:
        return encode_png(Photograph(drawn, provenance=self.record.line()))


def upscale_bytes(
    pipeline: ResShiftPipeline,
    data: bytes,
    name: str,
    target: Place,
    options: BatchOptions | None = None,
    progress: Callable[[float], None] | None = None,
) -> Upscaled:
    """The result of a photograph's file, in memory; `Upscaled.files` encodes what the command line would write.

    Args:
        pipeline: of a checkpoint.
        data: the file.
        name: path or name of the file, for messages; the sidecar has it without its folder.
        target: name of the result's file; nothing is written there.
        options: defaults to `BatchOptions()`.
        progress: called with the share of the sampling that is done, 0..1; what it raises ends the work.

    Raises:
        ImageError: the file cannot be read, or the target's format cannot hold the result.
        ValueError: settings that the checkpoint does not allow.
    """
    options = options or BatchOptions()
    photograph, record = read_source(pipeline, data, name, target, run_record(pipeline, options), options)
    return upscale_source(pipeline, name, photograph, target, record, options, progress)


def read_source(
    pipeline: ResShiftPipeline, data: bytes, place: str | Place, target: Place, record: Provenance,
    options: BatchOptions,
) -> tuple[Photograph, Provenance]:  # fmt: skip
    """Decode a file, check that `target` can hold its result, and warn of an input that does not suit the checkpoint.

    Args:
        place: what messages call the file.
        record: of the run.

    Returns:
        The photograph, and the record of its result without what is measured on it.

    Raises:
        ImageError: it cannot be read, or not as the options say.
    """
    photograph = decode_image(data, str(place), options.max_pixels, options.page)
    derived = photograph.record is not None
    if derived:
        logger.warning("%s is a result of super-resolution itself", place)
    record = replace(for_input(record, data, target, options), input_was_super_resolved=derived)
    if options.sampling.longest_side is not None:
        height, width = photograph.pixels.shape[:2]
        options.sampling.size_of(height, width, int(record.scale))
        record = replace(record, scale=plain_number(options.sampling.longest_side / max(height, width)))
    check_target(str(target), photograph, record.scale, options.quality_for(target))
    if options.deidentify:
        if photograph.dicom is None:
            raise ImageError(f"{place} is {photograph.format}; --deidentify is for DICOM, run the others without it")
        with naming(place):
            photograph = replace(photograph, dicom=deidentify(photograph.dicom))
    condition = measure_condition(photograph.pixels, quality_of_jpeg(data))
    if warning := condition.warning(restores=pipeline.config.check_measure == "burst"):
        logger.warning("%s: %s", place, warning)
    return photograph, record


def upscale_source(
    pipeline: ResShiftPipeline, place: str | Place, photograph: Photograph, target: Place, record: Provenance,
    options: BatchOptions, progress: Callable[[float], None] | None = None,
) -> Upscaled:  # fmt: skip
    """Sample the result of a photograph that was read; arguments as in `upscale_bytes` and from `read_source`."""
    pixels = photograph.pixels
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if photograph.has_alpha else (pixels, None)
    result = pipeline(
        np.ascontiguousarray(colour[..., 0] if colour.shape[2:] == (1,) else colour),
        generator=torch.Generator().manual_seed(options.seed),
        progress=progress,
        **vars(options.sampling),
    )
    upscaled = result.images[0]
    if alpha is not None:  # a mask is geometry, not retina: it is interpolated
        upscaled = np.dstack([upscaled, resize(alpha, upscaled.shape[:2], "bicubic")])
    record = result.measured(record)
    if record.bicubic_share:
        logger.warning("%s: %s, where the network's estimate contradicted it", place, record.returned())
    sigma = result.sigma[0] if result.sigma else None
    return Upscaled(place, photograph, target, upscaled, record, sigma, options)
