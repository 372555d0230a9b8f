"""Training samples: photographs, decoded once, are cut, changed as other cameras would show them, turned and degraded.

Every random choice of a sample comes from one generator seeded by (seed, position). So a sample does not depend on the
batch size, the number of processes, or interruptions. The choices are drawn on the CPU, which saves a GPU from waiting
for them; the pixels stay on the device.

The photographs of a training set come from few cameras, those of users from many, and some carry lines, rings and text
of annotation tools. So crops become softer, sharper, of another colour, exposure or aperture, or are drawn on.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from retinashift.data.photographs import DataError, FileRef, Item
from retinashift.diffusion.sampling import stream_generator
from retinashift.imaging.degradation.pipeline import Degradation
from retinashift.inference.fidelity import reduced
from retinashift.inference.pictures import turn_back
from retinashift.training.settings import CropSettings

Map = Callable[..., Iterable[Any]]  # `map`, or the `map` of an executor

NEARLY_BLACK = 16 / 255  # from 0 (black) to 1: darker pixels count as surround
BLOCK = 8  # side, in pixels, of the squares in which the visible part of a photograph is counted
TRIES = 4  # crops drawn until one shows enough of the eye; the last is used in any case
NUMBERS_OF_TRY = 5  # in [0, 1): set, photograph, factor, row, column
NUMBERS_OF_CHANGES = 26  # in [0, 1); which of them decides what does not depend on the settings
EDGE_WIDTHS = (0.7, 4.0)  # pixels over which an aperture darkens: from a mask on the file to a diaphragm out of focus
APERTURE_RADII = (0.7, 6.0)  # in sides of the crop: from a whole small field to a nearly straight edge
SURROUND_MAX = 0.1  # brightness of the brightest surround, from 0 to 1
SUPERSAMPLING = 2  # marks are drawn this many times larger and then averaged, so that their edges are smooth
MARKS_MAX = 3  # on a crop


@dataclass(eq=False)
class PhotographSet:
    """Photographs as (3, H, W) uint8 or uint16 tensors, decoded once and kept on `device` up to `cache_gib`."""

    items: list[Item]
    cache_gib: float
    device: torch.device | str = "cpu"
    balance: Literal["photograph", "set", "folder"] = "photograph"

    def __post_init__(self) -> None:
        self.paired = any(item.lr for item in self.items)  # LR images are given
        groups = defaultdict[str, list[int]](list)
        for index, item in enumerate(self.items):
            name = PurePosixPath(item.hr.name)
            own = {"photograph": "", "set": name.name.partition("_")[0], "folder": str(name.parent)}[self.balance]
            groups[own].append(index)
        self._groups = list(groups.values())
        self._left = self.cache_gib * 2**30
        self._kept: dict[FileRef, Tensor] = {}
        self._seen: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def pick(self, which_set: float, which: float) -> int:
        """The index of a photograph, from two numbers in [0, 1): each as often as `balance` says."""
        group = self._groups[int(which_set * len(self._groups))]
        return group[int(which * len(group))]

    def visible(self, index: int, top: int, left: int, side: int) -> float:
        """The share of a square that is not nearly black, to within its outermost `BLOCK` pixels."""
        rows, columns = (slice(at // BLOCK, math.ceil((at + side) / BLOCK)) for at in (top, left))
        return float(self.measured(index)[1][rows, columns].mean())

    def measured(self, index: int) -> tuple[tuple[int, int], np.ndarray]:
        """Height and width, and the visible share of squares of `BLOCK` pixels a side."""
        if index not in self._seen:
            pixels = self.pixels(self.items[index].hr)
            height, width = pixels.shape[-2:]
            bright = pixels.float().mean(0) > NEARLY_BLACK * torch.iinfo(pixels.dtype).max
            shares = F.avg_pool2d(bright.float()[None], BLOCK, ceil_mode=True)[0]
            self._seen[index] = (height, width), shares.cpu().numpy()
        return self._seen[index]

    def pixels(self, ref: FileRef) -> Tensor:
        """(3, H, W) on the device."""
        if ref in self._kept:
            return self._kept[ref]
        tensor = torch.from_numpy(np.ascontiguousarray(ref.read().transpose(2, 0, 1))).to(self.device)
        if tensor.nbytes <= self._left:
            self._left -= tensor.nbytes
            self._kept[ref] = tensor
        return tensor


@dataclass(frozen=True)
class Crop:
    """A square of a photograph: `window` pixels a side, which become `CropSettings.size`."""

    photograph: int
    top: int
    left: int
    window: int


def choose_crop(
    photographs: PhotographSet, settings: CropSettings, scale: int, tries: Iterable[tuple[float, ...]]
) -> Crop:
    """The first crop that shows enough of the eye, else the last; on the grid of the LR images if these are given.

    Each try has `NUMBERS_OF_TRY` numbers in [0, 1). DataError if a photograph is smaller than the crop.
    """
    low, high = math.log(settings.rescale_min), math.log(settings.rescale_max)
    step = scale if photographs.paired else 1
    for which_set, which, how_large, how_low, how_right in tries:
        index = photographs.pick(which_set, which)
        (height, width), _ = photographs.measured(index)
        check_size(photographs.items[index].hr.name, (height, width), settings)
        window = min(round(settings.size / math.exp(low + (high - low) * how_large)), height, width)
        top, left = (
            step * int(share * ((side - window) // step + 1)) for share, side in ((how_low, height), (how_right, width))
        )
        if photographs.visible(index, top, left, window) >= settings.min_visible:
            break
    return Crop(index, top, left, window)


def check_size(name: str, size: tuple[int, int], settings: CropSettings) -> None:
    """DataError for a photograph of that height and width, if it is smaller than a crop."""
    height, width = size
    if min(size) < settings.size:
        raise DataError(
            f"{name} is {width}x{height}, smaller than crop.size {settings.size}; leave it out, or lower crop.size"
        )


def cut(pixels: Sequence[Tensor], crops: Sequence[Crop], size: int) -> Tensor:
    """The crops of photographs (3, H, W) of whole numbers, (B, 3, size, size) in [0, 1], antialiased bicubic."""
    images = []
    for photograph, crop in zip(pixels, crops, strict=True):
        rows, columns = (slice(start, start + crop.window) for start in (crop.top, crop.left))
        image = photograph[None, :, rows, columns].float() / torch.iinfo(photograph.dtype).max  # (1, 3, window, window)
        if crop.window != size:
            image = reduced(image, size, size).clamp(0, 1)
        images.append(image)
    return torch.cat(images)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each of (B, C, S, S) under one of the eight symmetries of the square, `turns` (B,) from 0 to 7."""
    return torch.stack([turn_back(image, way) for image, way in zip(images, turns.tolist(), strict=True)])


def as_another_camera(hr: Tensor, settings: CropSettings, numbers: Tensor) -> Tensor:
    """The crops (B, 3, S, S) in [0, 1] with the changes of the settings, same shape.

    `numbers`, (B, NUMBERS_OF_CHANGES) in [0, 1) on the CPU, decide them.
    """
    return torch.stack([_changed(image, settings, row) for image, row in zip(hr, numbers.tolist(), strict=True)])


def _changed(image: Tensor, settings: CropSettings, numbers: list[float]) -> Tensor:
    """One crop (3, S, S)."""
    softer, sharper, tint, expose, aperture, strength = numbers[:6]
    power, darker, gain, edge, (marked, drawing) = (
        numbers[6:9], numbers[9:12], numbers[12:15], numbers[15:24], numbers[24:]
    )  # fmt: skip
    if settings.blur_sigma_max and softer < 0.5:
        image = _blur(image, strength * settings.blur_sigma_max)
    elif settings.sharpen_max and sharper < 0.5:
        image = (image + strength * settings.sharpen_max * (image - _blur(image, 1.0))).clamp(0, 1)
    if settings.tint_max and tint < 0.5:
        shade = _colours([1 - settings.tint_max * number for number in darker], image)
        image = shade * image ** _factors(settings.tint_max, power, image)
    if settings.expose_max and expose < 0.5:  # a sensor or film saturated in one colour
        image = (_factors(settings.expose_max, gain, image) * image).clamp(max=1)
    if aperture < settings.aperture_share:
        image = _aperture(image, edge)
    return draw_marks(image, drawing) if marked < settings.marks_share else image


def _blur(image: Tensor, sigma: float) -> Tensor:
    """(3, H, W) by a Gaussian, in pixels."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]  # (1, 1, 1, 2r + 1)
    padded = F.pad(image[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(-1, -2))[:, 0]


def _aperture(image: Tensor, numbers: Sequence[float]) -> Tensor:
    """(3, S, S) with a dark surround outside a disc whose edge passes through the crop; nine numbers in [0, 1)."""
    side = image.shape[-1]
    y, x, turn, size, width, dark, *tint = numbers
    row, column = y * side, x * side  # a point that the edge passes through
    to_middle = math.atan2(side / 2 - row, side / 2 - column) + (2 * turn - 1) * math.pi / 3
    radius = side * _between(APERTURE_RADII, size)
    row, column = row + radius * math.sin(to_middle), column + radius * math.cos(to_middle)  # the centre
    grid = torch.arange(side, device=image.device) + 0.5
    distance = torch.hypot(grid[:, None] - row, grid - column)  # (S, S)
    visible = ((radius - distance) / _between(EDGE_WIDTHS, width) + 0.5).clamp(0, 1)
    shade = _colours([SURROUND_MAX * dark * number for number in tint], image)
    return visible * image + (1 - visible) * shade


def _between(ends: tuple[float, float], position: float) -> float:
    """Interpolated in the logarithm; `position` in [0, 1]."""
    return float(ends[0] * (ends[1] / ends[0]) ** position)


def _factors(most: float, numbers: Sequence[float], image: Tensor) -> Tensor:
    """Of each colour, from 1 / (1 + most) to 1 + most."""
    return _colours([(1 + most) ** (2 * number - 1) for number in numbers], image)


def _colours(values: Sequence[float], image: Tensor) -> Tensor:
    """One value for each colour, (3, 1, 1) beside the image."""
    return torch.tensor(values, device=image.device)[:, None, None]


def draw_marks(image: Tensor, number: float) -> Tensor:
    """The image, (3, S, S) in [0, 1], with 1 to `MARKS_MAX` marks drawn on it; `number`, in [0, 1), decides them."""
    generator = np.random.default_rng(int(number * 2**53))
    for _ in range(int(generator.integers(1, MARKS_MAX + 1))):
        mask = _mask(image.shape[-1], generator).to(image.device)  # (S, S)
        pure = generator.random() < 0.5  # red, green and blue are each 0 or 1
        colour = generator.integers(0, 2, 3).astype(float) if pure else generator.random(3)
        image = image + mask * (_colours(colour.tolist(), image) - image)
    return image


def _mask(side: int, generator: np.random.Generator) -> Tensor:
    """The share of each pixel that one mark covers, (S, S) in [0, 1]."""
    large = side * SUPERSAMPLING
    mask = Image.new("L", (large, large))
    canvas = ImageDraw.Draw(mask)
    width = max(1, round(SUPERSAMPLING * math.exp(generator.uniform(math.log(0.7), math.log(8)))))
    (x, y), (u, v) = generator.uniform(-0.1, 1.1, (2, 2)) * large  # a mark may begin outside the crop
    match int(generator.integers(6)):
        case 0:
            canvas.line([(x, y), (u, v)], fill=255, width=width)
        case 1:
            radius_x = generator.uniform(0.03, 0.6) * large
            radius_y = radius_x * generator.uniform(0.7, 1.4)
            canvas.ellipse([x - radius_x, y - radius_y, x + radius_x, y + radius_y], outline=255, width=width)
        case 2:
            canvas.rectangle([min(x, u), min(y, v), max(x, u), max(y, v)], outline=255, width=width)
        case 3:
            steps = generator.normal(0, 0.12 * large, (int(generator.integers(4, 12)), 2))
            points = np.array([x, y]) + np.cumsum(steps, axis=0)
            canvas.line([tuple(point) for point in points.tolist()], fill=255, width=width, joint="curve")
        case 4:
            count, length = int(generator.integers(4, 20)), generator.uniform(4, 14) * SUPERSAMPLING
            canvas.line([(x, y), (u, y)], fill=255, width=width)
            for tick in np.linspace(x, u, count):
                canvas.line([(tick, y), (tick, y - length)], fill=255, width=width)
        case _:
            letters = [chr(int(code)) for code in generator.integers(33, 127, int(generator.integers(1, 12)))]
            size = generator.uniform(7, 40) * SUPERSAMPLING
            canvas.text((x, y), "".join(letters), fill=255, font=ImageFont.load_default(size))
    return torch.from_numpy(np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255)


def bicubic_reduce(hr: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, H/scale, W/scale), rounded to 8 bit: `bicubic-pillow` in torch.

    Pillow reduces the rows, rounds, then reduces the columns and rounds again; so do these two passes.
    """
    height, width = hr.shape[-2:]
    narrow = quantise(reduced(hr, height, width // scale))  # (B, C, H, w)
    return quantise(reduced(narrow, height // scale, width // scale))  # (B, C, h, w)


def quantise(image: Tensor) -> Tensor:
    """Round [0, 1] to the 256 levels of an 8-bit file."""
    return image.mul(255).round().clamp(0, 255).div(255)


@dataclass(frozen=True)
class Batch:
    """`hr` (B, 3, S, S) and `lr` (B, 3, S/scale, S/scale), float32 in [0, 1]."""

    hr: Tensor
    lr: Tensor


def make_batch(
    photographs: PhotographSet,
    settings: CropSettings,
    scale: int,
    seed: int,
    positions: Sequence[int],
    degradation: Degradation | None = None,
    map_cameras: Map = map,
) -> Batch:
    """The samples at `positions` of the endless stream that `seed` defines.

    `map_cameras` runs a degradation on the CPU, one call a sample; exact ones are computed on tensors instead.
    DataError if a photograph is smaller than the crop.
    """
    streams = [stream_generator(seed, position) for position in positions]
    counts = (TRIES * NUMBERS_OF_TRY, 1, NUMBERS_OF_CHANGES)
    numbers = torch.stack([torch.rand(sum(counts), generator=stream) for stream in streams])
    placing, turning, changing = numbers.split(counts, dim=1)  # (B, count) each
    tries = placing.unflatten(1, (TRIES, NUMBERS_OF_TRY)).tolist()
    crops = [choose_crop(photographs, settings, scale, of_sample) for of_sample in tries]
    turns = (8 * settings.flip * turning[:, 0]).long()  # (B,)
    items = [photographs.items[crop.photograph] for crop in crops]
    hr = turned(cut([photographs.pixels(item.hr) for item in items], crops, settings.size), turns)  # (B, 3, S, S)
    if photographs.paired:
        small = [Crop(c.photograph, c.top // scale, c.left // scale, c.window // scale) for c in crops]
        given = [photographs.pixels(item.lr) for item in items if item.lr]
        return Batch(hr, turned(cut(given, small, settings.size // scale), turns))
    hr = quantise(as_another_camera(hr, settings, changing))
    if degradation is not None and not degradation.exact:
        seeds = [int(torch.randint(2**62, (), generator=stream)) for stream in streams]
        return Batch(hr, _degraded(hr, scale, degradation, seeds, map_cameras))
    return Batch(hr, bicubic_reduce(hr, scale))  # (B, 3, S, S), (B, 3, S/scale, S/scale)


def _degraded(hr: Tensor, scale: int, degradation: Degradation, seeds: list[int], map_cameras: Map) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> (B, 3, S/scale, S/scale), computed on the CPU."""
    pixels = hr.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    small = list(map_cameras(degradation, pixels, repeat(scale), map(np.random.default_rng, seeds)))
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous().to(hr.device).float() / 255
