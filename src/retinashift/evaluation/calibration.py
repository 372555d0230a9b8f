"""Conformal quantiles of a checkpoint's uncertainty head, and how often the truth lies where its intervals say."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage, stats

from retinashift.evaluation.benchmark import OnFailure, Photographs, subject_of, work_through
from retinashift.evaluation.report import BICUBIC, drawn_inputs
from retinashift.evaluation.scores import Observed, Result, Subject
from retinashift.evaluation.similarity import absolute_errors, error_ratios
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.inference.detail import finest_energy, inner_field
from retinashift.inference.pictures import prepare
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.uncertainty_head import LEVEL, UNCALIBRATED, Calibration, fit_quantiles

NEIGHBOURS = 5  # side of the squares whose mean error and mean map are ranked
SOFTER, EVERY = (2.0, 3.0, 4.0), 3
"""Sigmas of Gaussians, in pixels of the photograph, that make every third input of a calibration softer."""


@dataclass(frozen=True)
class Coverage:
    """How often the truth is where a stated interval says, over all photographs and for each."""

    stated: tuple[float, ...]
    covered: tuple[float, ...]  # mean over photographs
    images: dict[str, float]  # at the level of `LEVEL`
    rank_correlations: dict[str, float]  # of map and error, see `rank_correlation`


def compare(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    on_failure: OnFailure = None,
    degradation: Degradation = BICUBIC,
    first: int = 0,
) -> Iterator[Result]:
    """The default result with its map beside the reference, one photograph after the other.

    Arguments as in `evaluate`; RGB. `first` is the number of the first photograph, from which its degradation is drawn.
    """

    def work(number: int, image: str, pixels: np.ndarray) -> Result:
        return _mapped(
            pipeline, subject_of(image, pixels, pipeline.config.scale, Observed(), degradation, first + number)
        )

    return work_through(photographs, work, on_failure)


def _mapped(pipeline: ResShiftPipeline, subject: Subject) -> Result:
    made = pipeline(subject.lr, num_inference_steps=1, output_uncertainty=True)
    assert made.sigma is not None
    return Result(subject, "default", made.images[0], made.sigma[0])


def calibrate(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    *,
    source: str = "",
    on_failure: OnFailure = None,
    degradation: Degradation = BICUBIC,
) -> Calibration:
    """The calibration of a checkpoint's head, on photographs it was not trained on; the pipeline has it afterwards.

    Arguments as in `compare`. Every photograph counts the same; `source` names them in the protocol. Whether the eye or
    its photograph is soft cannot be seen, so inputs softer than all of these get a larger map: as large as it must be
    to cover the sharp photograph that was blurred.

    Raises:
        ValueError: no head, or no photograph.
    """
    pipeline.register_to_config(calibration=UNCALIBRATED.to_config())
    scale, ratios, energies, softer = pipeline.config.scale, list[np.ndarray](), list[float](), list[list[float]]()
    for number, found in enumerate(compare(pipeline, photographs, on_failure, degradation)):
        ratios.append(error_ratios(found))
        energies.append(_energy(found))
        for sigma in SOFTER if number % EVERY == 0 else ():
            blurred = ndimage.gaussian_filter(found.subject.hr, (sigma, sigma, 0))
            soft = _mapped(pipeline, replace(found.subject, lr=bicubic_pillow(blurred, scale)))
            softer.append([sigma, _energy(soft), float(np.quantile(error_ratios(soft), LEVEL))])
    if not ratios:
        raise ValueError("no photograph could be compared; at least one is needed")
    weights = np.concatenate([np.full(len(values), 1 / len(values)) for values in ratios])
    protocol = {
        "source": source,
        "photographs": len(ratios),
        **drawn_inputs(degradation),
        "scale": pipeline.config.scale,
        "result": "one step, 8 bit",
        "channels": "RGB, pooled",
        "field_of_view": "luma above the surround, eroded by 4 pixels",
        "weights": "every photograph the same",
        "covers": LEVEL,
        "softer": f"every third photograph blurred by Gaussians of {', '.join(map(str, SOFTER))} pixels",
    }
    quantiles = fit_quantiles(np.concatenate(ratios), weights)
    softest = round(min(energies), 3)  # inf where no photograph has an inner field
    curve = [(softest, 1.0)] if math.isfinite(softest) else []
    for sigma in SOFTER:
        energy, needed = np.median([values for at, *values in softer if at == sigma], axis=0)
        if curve and energy < curve[-1][0]:
            curve.append((round(energy, 3), max(curve[-1][1], round(needed / quantiles[LEVEL], 3))))
    calibration = Calibration(quantiles, protocol, curve[::-1])
    pipeline.register_to_config(calibration=calibration.to_config())
    return calibration


def _energy(result: Result) -> float:
    """`finest_energy` of its input."""
    lr = prepare(result.subject.lr, torch.device("cpu"), torch.float32).lr
    return finest_energy(lr, inner_field(lr))


def measure_coverage(results: Iterable[Result], calibration: Calibration | None) -> Coverage:
    """How often the intervals of a checkpoint's calibration hold in results of `compare`.

    ValueError: no calibration, or no result.
    """
    if calibration is None:
        raise ValueError("this checkpoint has no calibrated uncertainty head; run retinashift calibrate on it first")
    widths = calibration.half_widths()
    shares, ranks = {}, {}
    for found in results:
        ratios, image = error_ratios(found), found.subject.image
        shares[image] = {level: float((ratios <= width).mean()) for level, width in widths.items()}
        ranks[image] = rank_correlation(found)
    if not shares:
        raise ValueError("no photograph could be compared; at least one is needed")
    means = tuple(float(np.mean([own[level] for own in shares.values()])) for level in widths)
    return Coverage(tuple(widths), means, {image: own[LEVEL] for image, own in shares.items()}, ranks)


def rank_correlation(result: Result) -> float:
    """Spearman's, of map and error over the field; means over `NEIGHBOURS` x `NEIGHBOURS` pixels of both."""
    assert result.sigma is not None
    pair = (result.sigma, absolute_errors(result).reshape(*result.sigma.shape, -1).mean(2))
    smooth = [ndimage.uniform_filter(values, NEIGHBOURS)[result.subject.field] for values in pair]
    return float(stats.spearmanr(*smooth)[0])
