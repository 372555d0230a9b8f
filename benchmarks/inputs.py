"""Low-resolution inputs as `retinashift evaluate --degradation` makes them, as files, for `rivals.py --inputs`.

    python benchmarks/inputs.py drive/images inputs/drive --degradation camera
    rivals/bin/python benchmarks/rivals.py inputs/drive results/drive --inputs --rival span --rival realesrgan
    retinashift evaluate drive/images --degradation camera --against SPAN=results/drive/span \\
        --against Real-ESRGAN=results/drive/realesrgan

The degradation of each photograph is drawn with the seed (0, number of the photograph), so the inputs are the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinashift.cli.evaluation import parse_degradation
from retinashift.data.photographs import find_photographs
from retinashift.evaluation.benchmark import degraded
from retinashift.imaging.degradation.bicubic import crop_to_multiple
from retinashift.imaging.files import write_image

SCALE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", help="folder of HR photographs; labels are left out")
    parser.add_argument("out", type=Path, help="folder that is made: STEM.png for each photograph")
    parser.add_argument("--degradation", default="camera", help="as in retinashift evaluate")
    options = parser.parse_args()
    try:
        degradation = parse_degradation(options.degradation)
        options.out.mkdir(parents=True)
        for number, ref in enumerate(find_photographs(options.photographs)):
            hr = crop_to_multiple(ref.read(), SCALE)
            write_image(options.out / f"{Path(ref.name).stem}.png", degraded(hr, SCALE, degradation, number))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
