"""Conformal quantiles of a checkpoint's uncertainty head, and how often the truth lies where its intervals say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

from retinashift.evaluation.coverage import covered_shares
from retinashift.imaging.degradation.bicubic import DEGRADATION, bicubic_pillow, crop_to_multiple
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.uncertainty import LEVEL, UNCALIBRATED, Calibration, fit_quantiles

NEIGHBOURS = 5
"""Side of the squares whose mean error and mean map are ranked."""
Photographs = Iterable[tuple[str, np.ndarray | Callable[[], np.ndarray]]]


@dataclass(frozen=True)
class Compared:
    """The map of one photograph beside the true error."""

    image: str
    result: np.ndarray
    """(H, W, 3) uint8."""
    sigma: np.ndarray
    """(H, W), in levels of 255."""
    errors: np.ndarray
    """|result - reference|, (H, W, 3), in levels of 255."""
    field: np.ndarray
    """Field of view, (H, W) bool."""

    @property
    def ratios(self) -> np.ndarray:
        """|error| / sigma of the values in the field, RGB pooled, (n,)."""
        return (self.errors[self.field] / self.sigma[self.field][:, None]).ravel()

    def rank_correlation(self) -> float:
        """Spearman's, of map and error over the field; means over `NEIGHBOURS` x `NEIGHBOURS` pixels of both."""
        map_, error = (ndimage.uniform_filter(x, NEIGHBOURS)[self.field] for x in (self.sigma, self.errors.mean(2)))
        return float(stats.spearmanr(map_, error)[0])


@dataclass(frozen=True)
class Coverage:
    """How often the truth is where a stated interval says, over all photographs and for each."""

    stated: tuple[float, ...]
    covered: tuple[float, ...]
    """Mean over photographs."""
    images: dict[str, float]
    """At the level of `LEVEL`."""
    rank_correlations: dict[str, float]
    """Of map and error, by photograph; see `Compared`."""


def compare(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Iterable[Compared]:
    """Map and error of the default result, one photograph after the other.

    Args:
        photographs: name and HR pixels, (H, W, 3) uint8, or a function that reads them. Inputs are `bicubic-pillow`.
        on_progress: called after each photograph with the number done.
        on_failure: called with name and error of a photograph that cannot be compared, which is left out; without it,
            the error is raised.
    """
    scale = pipeline.config.scale
    for number, (name, given) in enumerate(photographs):
        try:
            hr = crop_to_multiple(given() if callable(given) else given, scale)
            made = pipeline(bicubic_pillow(hr, scale), num_inference_steps=1, output_uncertainty=True)
            assert made.sigma is not None
            errors = np.abs(made.images[0].astype(np.float32) - hr)
            yield Compared(name, made.images[0], made.sigma[0] * 255, errors, field_of_view(hr))
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(name, error)
        if on_progress is not None:
            on_progress(number + 1)


def calibrate(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    *,
    source: str = "",
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Calibration:
    """The calibration of a checkpoint's head, on photographs it was not trained on; the pipeline has it afterwards.

    Args:
        photographs, on_progress, on_failure: as in `compare`. Every photograph counts the same.
        source: name of the photographs, for the protocol.

    Raises:
        ValueError: no head, or no photograph.
    """
    pipeline.register_to_config(calibration=UNCALIBRATED.to_config())
    ratios = [found.ratios for found in compare(pipeline, photographs, on_progress, on_failure)]
    if not ratios:
        raise ValueError("no photograph could be compared; at least one is needed")
    weights = np.concatenate([np.full(len(values), 1 / len(values)) for values in ratios])
    protocol = {
        "source": source,
        "photographs": len(ratios),
        "degradation": DEGRADATION,
        "scale": pipeline.config.scale,
        "result": "one step, 8 bit",
        "channels": "RGB, pooled",
        "field_of_view": "luma above the surround, eroded by 4 pixels",
        "weights": "every photograph the same",
        "covers": LEVEL,
    }
    found = Calibration(fit_quantiles(np.concatenate(ratios), weights), protocol)
    pipeline.register_to_config(calibration=found.to_config())
    return found


def measure_coverage(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    *,
    on_progress: Callable[[int], object] | None = None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> Coverage:
    """How often the checkpoint's intervals hold on photographs; arguments as in `compare`.

    Raises:
        ValueError: a checkpoint without a calibrated head, or no photograph.
    """
    if pipeline.calibration is None:
        raise ValueError("this checkpoint has no calibrated uncertainty head; run retinashift calibrate on it first")
    widths = pipeline.calibration.half_widths()
    shares, ranks = {}, {}
    for found in compare(pipeline, photographs, on_progress, on_failure):
        shares[found.image] = covered_shares(found.ratios, widths.values())
        ranks[found.image] = found.rank_correlation()
    if not shares:
        raise ValueError("no photograph could be compared; at least one is needed")
    at = list(widths).index(LEVEL)
    means = tuple(np.mean(list(shares.values()), 0).tolist())
    return Coverage(tuple(widths), means, {image: own[at] for image, own in shares.items()}, ranks)
