"""The chain on one picture: rows of the input in, rows of the sample out.

A network that streams gets a few rows at a time, each step from the step before it, and neither the state nor its noise
is held whole. For any other the state is held, and its prediction is made by tiles where memory does not suffice.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import torch
from torch import Tensor

from retinashift.diffusion.sampling import boost_detail, normal_rows, sample
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.memory import out_of_memory, trim_heap
from retinashift.models.codec import Codec, Upsampling, blend_tiles, upsample_bicubic, upsample_rows
from retinashift.models.light_net import LightNet, LightStream, RowQueue
from retinashift.models.swin_unet import pad_to_multiple
from retinashift.models.uncertainty_head import ScaleMap, UncertaintyHead

logger = logging.getLogger(__name__)

BAND_ROWS, LEAST_ROWS = 64, 12  # more rows at a time are not faster; with fewer, the fixed cost of a band shows
FEWEST_ROWS = 4  # thinner bands take hardly less memory and up to twice the time: they are for when memory ran out
BAND_PIXELS = 20_000  # wide pictures have thin bands
LIBRARY, KEPT, ROW, AFTER, INPUT = 28 * 2**20, 1.5, 1.5, 440, 5  # see `plan_bands`
SCARCE = 0.25  # share of the memory from which on freed memory goes back to the system after each band
TILE_MARGIN = 16  # positions of the state that a tile reads beyond what it keeps
States = Iterator[tuple[Tensor, Tensor]]  # rows of x_t and of y0, (1, C, n, w) each, top to bottom
StepEnd = Callable[[Any, int, int, dict[str, Any]], "dict[str, Any] | None"]
"""diffusers' form of a callback: (pipeline, step, timestep, tensors by name)."""
Report = Callable[[int, Tensor, Tensor], None]  # (step, x0, x_t), both whole
Listener = Callable[[float], None]


def at_step_end(pipeline: Any, call: StepEnd, names: Sequence[str]) -> Report:
    """A report that calls diffusers' form of callback; ValueError for an unknown tensor, or when one was changed."""
    if not set(names) <= {"latents", "x0"}:
        raise ValueError(f"callback_on_step_end_tensor_inputs is {list(names)}; allowed are latents, x0")

    def report(step: int, x0: Tensor, x_t: Tensor) -> None:
        offered = {name: {"latents": x_t, "x0": x0}[name] for name in names}
        back = call(pipeline, step, int(pipeline.scheduler.timesteps[step]), dict(offered)) or {}
        if any(back.get(name, tensor) is not tensor for name, tensor in offered.items()):
            raise ValueError("callback_on_step_end returned other tensors; they are read only, return {}")

    return report


@dataclass
class StepWatch:
    """Watches all samples of a call, one after the other."""

    samples: int = 1
    report: Report | None = None  # called after each step; without it no state is held
    progress: Listener | None = None  # called with the share of the work that is done, whenever there are more rows
    _done: int = -1
    _held: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def begin(self, height: int, steps: int) -> None:
        """The next sample begins: rows of its state, and steps of its chain."""
        self.height, self._total, self._seen, self._done = height, height * steps, 0, self._done + 1

    def restart(self) -> None:
        """The rows of the sample come from the top, perhaps again because memory ran out."""
        self._held.clear()

    def rows(self, step: int, x0: Tensor, x_t: Tensor) -> None:
        """The next rows of a step, (1, C, n, w)."""
        self._seen = min(self._total, self._seen + x0.shape[-2])  # rows that come again do not count beyond the whole
        if self.progress is not None:
            self.progress((self._done + self._seen / self._total) / self.samples)
        if self.report is not None:
            held = self._held.setdefault(step, [])
            held.append((x0, x_t))
            if sum(x.shape[-2] for x, _ in held) == self.height:
                whole = [torch.cat(parts, dim=-2) for parts in zip(*self._held.pop(step), strict=True)]
                self.report(step, whole[0], whole[1])


@dataclass
class Chain:
    """Samples of one picture."""

    net: Any
    scheduler: ResShiftScheduler  # its steps are set
    codec: Codec  # into whose space the picture is brought, once for all samples
    lr: InitVar[Tensor]  # (1, 3, h, w) in [-1, 1]
    scale: int
    upsampling: Upsampling  # how y0 is made
    seed: int | None  # of the noise; None starts one step at y0, without noise
    detail_gain: float = 1.0  # see `boost_detail`
    uncertainty: tuple[UncertaintyHead, ScaleMap] | None = None  # the map takes the head's scales of the last step

    def __post_init__(self, lr: Tensor) -> None:
        self.height, self.width = lr.shape[-2:]
        # latents are padded as pictures, before they are encoded; a chain on pixels is padded inside the network
        self.lq = lr if self.codec.lossless else pad_to_multiple(lr, self.net.size_multiple * self.net.lq_ratio)
        self.y0, self.rows = None, self.height  # the whole, if it is held, and rows of the state
        if not self.net.streams:
            self.y0 = self.codec.encode(upsample_bicubic(self.lq, self.scale, self.upsampling))  # (1, C, h', w')
            self.rows = self.y0.shape[-2]
            trim_heap()

    def bands(self, member: int, memory: int, watch: StepWatch) -> Iterator[Tensor]:
        """Sample number `member` in bands from top to bottom, (1, 3, n*scale, w*scale) float32 in about [-1, 1].

        It may take `memory` bytes, and tells `watch` of each step's rows.
        """
        steps = len(self.scheduler.timesteps)
        watch.begin(self.rows, steps)
        if self.y0 is not None:
            yield self._whole(self.y0, member, planned_side(self.net, memory), watch)
            return
        rows, needed = plan_bands((self.height, self.width), self.net, memory, steps)
        if needed > memory:
            logger.warning(
                "bands of %d rows need about %d MiB, and %d MiB are left of the memory limit; close other programs, or "
                "give a larger --memory", rows, needed >> 20, memory >> 20,
            )  # fmt: skip
        for band in retry_with_smaller_bands(lambda n: map(self.codec.decode, self._rows(member, n, watch)), rows):
            yield band.float()
            if needed > SCARCE * memory and self.lq.device.type == "cpu":
                trim_heap()  # costs a tenth of the time; of maps that come and go the C library keeps several times

    def _whole(self, y0: Tensor, member: int, side: int, watch: StepWatch) -> Tensor:
        """One sample, (1, 3, H, W) float32, predicted in tiles of at most `side` positions."""

        def predict(x_t: Tensor, t: int) -> Tensor:
            return predict_by_tiles(lambda x, lq: self.net(x, t, lq=lq).sample, self.net, x_t, self.lq, side)

        draw = None if self.seed is None else lambda number: self._noise(member, number, 0, y0)
        x_t = mean = y0
        for number, (x_t, x0) in enumerate(sample(self.scheduler, predict, y0, draw)):
            mean = mean if number else x0
            watch.rows(number, x0, x_t)
        if self.detail_gain != 1:
            x_t = boost_detail(x_t, mean, self.detail_gain)
        trim_heap()
        image = self.codec.decode(x_t)[..., : self.height * self.scale, : self.width * self.scale].float()
        trim_heap()
        return image

    def _rows(self, member: int, rows: int, watch: StepWatch) -> Iterator[Tensor]:
        """x0 at the end of the chain, (1, C, n, w) each; at most `rows` are taken at a time."""
        means = RowQueue()
        watch.restart()
        if self.uncertainty is not None:
            self.uncertainty[1].row = 0
        states = self._start(member, rows)
        for number in range(len(self.scheduler.timesteps)):
            keep = means if number == 0 and self.detail_gain != 1 else None
            states = self._step(states, member, number, rows, watch, keep)
        for x0, _ in states:  # (1, C, n, w)
            yield x0 if self.detail_gain == 1 else boost_detail(x0, means.take(x0.shape[-2]), self.detail_gain)

    def _start(self, member: int, rows: int) -> States:
        """Rows of x_T and of y0."""
        for top in range(0, self.rows, rows):
            bottom = min(top + rows, self.rows)
            y0 = self.codec.encode(upsample_rows(self.lq, top, bottom, self.scale, self.upsampling))
            x_T = y0 if self.seed is None else self.scheduler.init_noise(y0, noise=self._noise(member, 0, top, y0))
            yield x_T, y0  # eq. 3

    def _step(
        self, states: States, member: int, number: int, rows: int, watch: StepWatch, means: RowQueue | None
    ) -> States:
        """x_t -> x_{t-1} with its y0, in bands of at most `rows`; estimates of x0 also go into `means` where given."""
        t = int(self.scheduler.timesteps[number])
        last = number == len(self.scheduler.timesteps) - 1
        stream = LightStream(self.net, t, self.rows, rows, self.uncertainty if last else None)
        x_waiting, y_waiting = RowQueue(), RowQueue()
        seen = done = 0  # rows
        for x_t, y0 in states:
            x_waiting.push(x_t)
            y_waiting.push(y0)
            lq, seen = self.lq[..., seen : seen + y0.shape[-2], :], seen + y0.shape[-2]
            for prediction in stream.push(self.scheduler.scale_model_input(x_t, t) - y0, lq):  # (1, C, n, w)
                count = prediction.shape[-2]
                x, y = x_waiting.take(count), y_waiting.take(count)
                noise = self._noise(member, number + 1, done, y) if self.scheduler.draws_noise(t) else None
                done += count
                x_prev, x0 = self.scheduler.step(prediction, t, x, y, noise=noise, return_dict=False)  # eqs. 6, 7
                if means is not None:
                    means.push(x0)
                watch.rows(number, x0, x_prev)
                yield from zip(x_prev.split(rows, dim=-2), y.split(rows, dim=-2), strict=True)

    def _noise(self, member: int, draw: int, top: int, like: Tensor) -> Tensor:
        assert self.seed is not None
        _, channels, count, width = like.shape
        return normal_rows(self.seed, (member, draw), top, top + count, channels, width).to(like)


def retry_with_smaller_bands(bands: Callable[[int], Iterator[Tensor]], rows: int) -> Iterator[Tensor]:
    """`bands(rows)`; where memory runs out it begins again with half as many rows, and goes on where it was.

    MemoryError where one row at a time is too much.
    """
    given = 0  # rows of the result
    while True:
        seen = 0
        try:
            for band in bands(rows):
                top, seen = seen, seen + band.shape[-2]
                if seen > given:
                    skipped, given = max(0, given - top), seen
                    yield band[..., skipped:, :]
            return
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if rows == 1:
                raise MemoryError("memory does not suffice for one row of the picture; close other programs") from None
            rows //= 2
            trim_heap()  # what thicker bands have freed


def plan_bands(size: tuple[int, int], net: LightNet, memory: int, steps: int = 1) -> tuple[int, int]:
    """How many rows at a time fit into `memory` bytes, and how many bytes the chain then takes.

    The rows are `FEWEST_ROWS` to what `BAND_PIXELS` and `BAND_ROWS` allow. Counted from the code, the layers of each
    step keep two or three rows between bands, and a row takes six maps of the network's width and eight of the state
    for each of its pixels. What a process holds at its peak, pieces between the maps included, was measured for the
    bundled x4 at widths 300 to 1600, heights 128 to 512 and 1 to 3 steps, with bands of 4 to 12 rows: `KEPT` times
    the former and `ROW` times the latter, `LIBRARY` for the convolutions, `AFTER` rows of the result for the self-check
    and back-projection, and the input, its limits and what is compared, `INPUT` times the input as float32.

    Args:
        size: height and width of the input.
    """
    (height, width), config = size, net.config
    pixel, state = width * net.dtype.itemsize, config.image_channels * config.factor**2  # bytes of a row of one channel
    kept = KEPT * steps * (config.width * (8 * config.depth + 6) + 4 * state * config.depth) + AFTER * state
    held = LIBRARY + pixel * (kept + INPUT * config.image_channels * height)
    row = ROW * pixel * (6 * config.width + 8 * state)
    most = min(BAND_ROWS, max(LEAST_ROWS, BAND_PIXELS // width))
    rows = int(max(FEWEST_ROWS, min(most, (memory - held) // row)))
    return rows, int(held + rows * row)


def planned_side(net: Any, memory: int) -> int:
    """Side of the largest square of whole windows of the state that fits into `memory` bytes, and no tile too small."""
    return _whole_windows(net, int((memory / net.bytes_per_position) ** 0.5))


def _whole_windows(net: Any, side: int) -> int:
    """At most `side`; but the middle of a tile must be so wide that its neighbours do not meet."""
    return int(max(-(-6 * TILE_MARGIN // net.size_multiple), side // net.size_multiple) * net.size_multiple)


def predict_by_tiles(predict: Callable[[Tensor, Tensor], Tensor], net: Any, x: Tensor, lq: Tensor, side: int) -> Tensor:
    """`predict(x, lq)` of the whole picture, in squares of at most `side` positions of the state.

    Args:
        predict: one call of the network.
        x: the state, (B, C, h, w). lq: the condition, (B, 3, h*r, w*r), r the network's `lq_ratio`.
        side: see `planned_side`. Where memory runs out it is halved, down to a MemoryError at the smallest.
    """
    height, width = x.shape[-2:]
    while True:
        try:
            if height * width <= side * side:
                return predict(x, lq)
            work = lambda cut: predict(cut(x, 1), cut(lq, net.lq_ratio))  # noqa: E731
            return blend_tiles(work, (height, width), side - 2 * TILE_MARGIN, TILE_MARGIN)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if (smaller := _whole_windows(net, side // 2)) >= side:
                raise MemoryError("memory does not suffice for one tile of the picture; close other programs") from None
            side = smaller
