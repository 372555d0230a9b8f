"""A contact sheet of real poor photographs: input, bicubic, the bundled checkpoints, and other networks.

    python benchmarks/real.py FOLDER --inputs crops
    rivals/bin/python benchmarks/rivals.py crops results --inputs --rival realesrgan
    python benchmarks/real.py FOLDER -o sheet.jpg --against Real-ESRGAN=results/realesrgan

There is no reference of these pixels, so nothing is scored. Of each photograph a square of `SIDE` pixels is upscaled
four times and its middle is shown: where the green channel varies most, which is not chosen by eye. A file
STEM_mosaic.png beside STEM_frame.png, a sharper view of the same eye, is shown whole in the last column.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from retinashift.cli.evaluation import parse_against
from retinashift.data.photographs import find_photographs
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.imaging.files import read_image
from retinashift.imaging.fundus import field_of_view
from retinashift.inference.pipeline import open_checkpoint

SIDE, SHOWN, SCALE = 96, 64, 4
SURROUND = 8.0
"""Blur in pixels."""
CELL, HEAD, NAMES, GAP = 256, 24, 120, 4
"""Of the sheet in pixels: a picture, the heads of the columns, the names of the rows, the gaps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=Path, help="write the inputs into this new folder instead, for rivals.py")
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.jpg"), help="default sheet.jpg")
    parser.add_argument("--against", action="append", default=[], help="NAME=FOLDER of results; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = {ref.path.stem: ref.path for ref in find_photographs(options.folder)}
    crops = {stem: square(read_image(path).pixels) for stem, path in paths.items() if not stem.endswith("_mosaic")}
    if options.inputs is not None:
        options.inputs.mkdir(parents=True)
        for stem, pixels in crops.items():
            Image.fromarray(pixels).save(options.inputs / f"{stem}.png")
        return
    x4, restore = open_checkpoint("x4"), open_checkpoint("x4_restore")
    rows = {}
    for stem, lr in crops.items():
        row = {"input": enlarge(lr, SCALE, "nearest"), "bicubic": enlarge(lr, SCALE, "bicubic")}
        row |= {"x4": x4(lr).images[0], "x4_restore": restore(lr).images[0]}
        row["x4_restore, realistic"] = restore(lr, mode="realistic", generator=torch.Generator().manual_seed(0)).images[
            0
        ]
        row |= {name: read_image(at / f"{stem}.png").pixels for name, at in parse_against(options.against).items()}
        edge = (SIDE - SHOWN) // 2 * SCALE
        rows[stem] = {name: picture[edge:-edge, edge:-edge] for name, picture in row.items()}
        mosaic = paths.get(stem.replace("_frame", "_mosaic"), paths[stem])
        if mosaic != paths[stem]:
            rows[stem]["mosaic, whole"] = read_image(mosaic).pixels
    sheet(rows).save(options.output, quality=88)


def square(pixels: np.ndarray) -> np.ndarray:
    """The square whose middle has the largest deviation of green from its surround, away from the border and glare."""
    green = pixels[..., 1].astype(np.float32)
    detail = (green - ndimage.gaussian_filter(green, SURROUND)) ** 2
    usable = ndimage.minimum_filter((pixels.max(-1) < 250) & field_of_view(pixels), SIDE)
    deviation = np.where(usable, ndimage.uniform_filter(detail, SHOWN), -1)
    half = SIDE // 2
    inner = deviation[half:-half, half:-half]
    row, column = np.unravel_index(inner.argmax(), inner.shape)
    return np.ascontiguousarray(pixels[row : row + SIDE, column : column + SIDE])


def sheet(rows: dict[str, dict[str, np.ndarray]]) -> Image.Image:
    """One row a photograph, one column a method."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    size = (NAMES + len(columns) * (CELL + GAP), HEAD + len(rows) * (CELL + GAP))
    canvas, font = Image.new("RGB", size, "white"), ImageFont.load_default(size=15)
    draw = ImageDraw.Draw(canvas)
    for number, name in enumerate(columns):
        draw.text((NAMES + number * (CELL + GAP), 3), name, fill="black", font=font)
    for line, (stem, row) in enumerate(rows.items()):
        top = HEAD + line * (CELL + GAP)
        draw.multiline_text((0, top), "\n".join(stem.split("_")[:2]), fill="black", font=font)
        for name, pixels in row.items():
            picture = Image.fromarray(pixels)
            picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
            canvas.paste(picture, (NAMES + columns.index(name) * (CELL + GAP), top))
    return canvas


if __name__ == "__main__":
    main()
