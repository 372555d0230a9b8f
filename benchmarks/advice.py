"""Which checkpoint `inspect` advises for clean and for camera-degraded inputs: the confusion table of the manual.

    python benchmarks/advice.py data/val data/val_more

Every photograph is taken at its own size, reduced by four, and under the camera degradation: whole, and blur, noise or
compression alone. Pictures of scikit-image that show no eye are counted apart.
"""

import argparse

import numpy as np
import skimage.data

from retinashift.data.photographs import find_photographs
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple
from retinashift.imaging.degradation.pipeline import Camera
from retinashift.inference.advice import measure_condition

OFF = dict.fromkeys(("blur_probability", "noise_probability", "mosaic_probability", "jpeg_probability"), 0.0)
INPUTS = {
    "clean, native size": None,
    "clean, reduced": lambda hr, number: bicubic_pillow(hr, 4),
    "camera": lambda hr, number: Camera()(hr, 4, np.random.default_rng((0, number))),
    **{
        f"camera, {name} alone": lambda hr, number, name=name: Camera(**{**OFF, f"{name}_probability": 1.0})(
            hr, 4, np.random.default_rng((0, number))
        )
        for name in ("blur", "noise", "jpeg")
    },
}
OTHERS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "colorwheel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+")
    refs = [ref for folder in parser.parse_args().folders for ref in find_photographs(folder)]
    advised = {name: [0, 0] for name in INPUTS}
    strange = 0
    for number, ref in enumerate(refs):
        hr = crop_to_multiple(np.ascontiguousarray(ref.read()), 4)
        for name, make in INPUTS.items():
            found = measure_condition(hr if make is None else make(hr, number))
            advised[name][found.advised == "x4_restore"] += 1
            strange += name.startswith("clean") and not found.fundus
    print(f"{len(refs)} photographs\n\n| input | x4 advised | x4_restore advised |\n|---|---|---|")
    for name, counts in advised.items():
        print(f"| {name} | {counts[0] / len(refs):.0%} | {counts[1] / len(refs):.0%} |")
    warned = [name for name in OTHERS if not measure_condition(getattr(skimage.data, name)()[..., :3]).fundus]
    print(f"\nNot fundus: {strange} of {2 * len(refs)} clean inputs; {len(warned)} of {len(OTHERS)} other pictures")


if __name__ == "__main__":
    main()
