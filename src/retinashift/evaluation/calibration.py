"""Conformal quantiles of a checkpoint's uncertainty head, and how often the truth lies where its intervals say."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

from retinashift.evaluation.benchmark import OnFailure, Photographs, subject_of, work_through
from retinashift.evaluation.report import BICUBIC, drawn_inputs
from retinashift.evaluation.scores import Observed, Result
from retinashift.evaluation.similarity import absolute_errors, error_ratios
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.uncertainty_head import LEVEL, UNCALIBRATED, Calibration, fit_quantiles

NEIGHBOURS = 5  # side of the squares whose mean error and mean map are ranked


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
        subject = subject_of(image, pixels, pipeline.config.scale, Observed(), degradation, first + number)
        made = pipeline(subject.lr, num_inference_steps=1, output_uncertainty=True)
        assert made.sigma is not None
        return Result(subject, "default", made.images[0], made.sigma[0])

    return work_through(photographs, work, on_failure)


def calibrate(
    pipeline: ResShiftPipeline,
    photographs: Photographs,
    *,
    source: str = "",
    on_failure: OnFailure = None,
    degradation: Degradation = BICUBIC,
) -> Calibration:
    """The calibration of a checkpoint's head, on photographs it was not trained on; the pipeline has it afterwards.

    Arguments as in `compare`. Every photograph counts the same; `source` names them in the protocol.

    Raises:
        ValueError: no head, or no photograph.
    """
    pipeline.register_to_config(calibration=UNCALIBRATED.to_config())
    ratios = [error_ratios(found) for found in compare(pipeline, photographs, on_failure, degradation)]
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
    }
    found = Calibration(fit_quantiles(np.concatenate(ratios), weights), protocol)
    pipeline.register_to_config(calibration=found.to_config())
    return found


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
