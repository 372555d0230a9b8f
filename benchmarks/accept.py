"""Acceptance: what a checkpoint must reach before it is bundled. Exit code 1 where it does not.

    python benchmarks/accept.py CHECKPOINT [--photographs FOLDER] [--limit N]

Without a folder the public-domain retina of scikit-image is used, at 704 pixels a side. With one, a threshold holds of
the mean over its photographs, and the faithful result must beat bicubic on every one. A checkpoint without projection,
such as x4_restore, is judged on inputs of the degradation `camera`, beside bicubic on the same inputs.
"""

from __future__ import annotations

import argparse
import operator
import sys
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw

from retinashift.cli.pictures import public_retina
from retinashift.data.photographs import find_photographs
from retinashift.evaluation.similarity import colour_differences, psnr_rgb
from retinashift.evaluation.vessels import dice, vessel_map
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Camera
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import ResShiftPipeline, open_checkpoint

COMMON = {
    "gain": (">=", 0.25, "PSNR over bicubic, dB, field of view"),
    "vessels": (">=", 0.03, "Dice of the vessels with the reference's, over bicubic's"),
    "colour": ("<=", 0.0, "mean CIEDE2000 over bicubic's"),
}
EXACT = {
    "gain": (">=", 1.0, COMMON["gain"][2]),
    "vessels": (">=", 0.1, COMMON["vessels"][2]),
    "equal": (">=", 0.999, "share of values that are equal to the input once the result is reduced and rounded"),
    "levels": ("<=", 1.0, "their largest difference, levels of 255"),
    "returned": ("<=", 0.001, "share of the field that the self-check returned to bicubic"),
    "drawn": (">=", 0.0, "PSNR over bicubic with a green ring drawn on the photograph, dB"),
    "burst": ("<=", 0.0002, "share of pixels there that are 40 levels worse than bicubic"),
}
SAMPLED = {
    "gain": (">=", -2.0, "PSNR over bicubic, dB, field of view"),
    "vessels": EXACT["vessels"],
    "equal": EXACT["equal"],
    "levels": EXACT["levels"],
    "returned": EXACT["returned"],
}
"""Of one-step students, which draw samples: their PSNR may lie below bicubic's."""
HOLDS = {">=": operator.ge, "<=": operator.le}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="folder or bundled name")
    parser.add_argument("--photographs", help="folder of HR photographs; default: the retina of the demo")
    parser.add_argument("--limit", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = open_checkpoint(options.checkpoint)
    exact = pipeline.config.back_projections > 0
    thresholds = SAMPLED if pipeline.config.distilled is True else COMMON | (EXACT if exact else {})
    found = [measure(pipeline, hr, exact, n) for n, hr in enumerate(references(options.photographs, options.limit))]
    failed = 0
    for name, (sign, bound, meaning) in thresholds.items():
        values = [values[name] for values in found]
        value = float(max(values) if name in ("levels", "burst") else np.mean(values))
        passes = HOLDS[sign](value, bound) and (name != "gain" or pipeline.config.distilled is True or min(values) > 0)
        failed += not passes
        print(f"{'pass' if passes else 'FAIL'}  {name:9}{value:9.4f} {sign} {bound:<7} {meaning}")
    print(f"{options.checkpoint}: {'not accepted' if failed else 'accepted'}, {len(found)} photographs")
    sys.exit(bool(failed))


def references(folder: str | None, limit: int) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8, sides multiples of 4."""
    if folder is None:
        yield public_retina()
    else:
        for ref in find_photographs(folder)[:limit]:
            yield crop_to_multiple(ref.read(), 4)


def measure(pipeline: ResShiftPipeline, hr: np.ndarray, exact: bool, number: int) -> dict[str, float]:
    """The numbers of one photograph, by the names in the tables above."""
    scale, field = pipeline.config.scale, field_of_view(hr)
    lr = bicubic_pillow(hr, scale) if exact else Camera()(hr, scale, np.random.default_rng((0, number)))
    result = pipeline(lr)
    sr, smooth = result.images[0], enlarge(lr, scale, "bicubic")
    truth = vessel_map(hr, field)
    dices = [dice(vessel_map(image, field, truth.level).vessels, truth.vessels, field) for image in (sr, smooth)]
    colours = [float(colour_differences(image, hr, field).mean()) for image in (sr, smooth)]
    missed = np.abs(bicubic_pillow(sr, scale).astype(int) - lr)
    found = {
        "gain": psnr_rgb(sr, hr, field) - psnr_rgb(smooth, hr, field),
        "vessels": dices[0] - dices[1],
        "colour": colours[0] - colours[1],
        "equal": float((missed == 0).mean()),
        "levels": float(missed.max()),
        "returned": result.bicubic_share[0],
    }
    if exact and pipeline.config.distilled is not True:
        found |= drawn_upon(pipeline, hr, field)
    return found


def drawn_upon(pipeline: ResShiftPipeline, hr: np.ndarray, field: np.ndarray) -> dict[str, float]:
    """The same photograph with a green ring on it."""
    image, side, scale = Image.fromarray(hr), min(hr.shape[:2]), pipeline.config.scale
    ImageDraw.Draw(image).ellipse([side * 0.3, side * 0.3, side * 0.6, side * 0.6], outline=(0, 255, 0), width=3)
    marked = np.asarray(image)
    lr = bicubic_pillow(marked, scale)
    pair = pipeline(lr).images[0], enlarge(lr, scale, "bicubic")
    gain = psnr_rgb(pair[0], marked, field) - psnr_rgb(pair[1], marked, field)
    errors = [np.abs(each.astype(int) - marked).max(-1) for each in pair]
    return {"drawn": gain, "burst": float((errors[0] - errors[1] >= 40).mean())}


if __name__ == "__main__":
    main()
