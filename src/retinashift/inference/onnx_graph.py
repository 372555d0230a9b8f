"""The faithful mode as one ONNX graph, for onnxruntime, OpenVINO, browsers and any tool that opens ONNX upscalers.

It is one network call from x_T = y0: the noisy state enters as zero, the time embedding folds into the convolutions,
and a stack of 3x3 convolutions remains. Both bicubic kernels are convolutions divided by their sum inside the picture,
because the runtimes' own resize operators differ at the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partialmethod
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from retinashift.imaging.degradation.bicubic import keys_cubic
from retinashift.imaging.files import replace_file
from retinashift.imaging.fundus import LUMA
from retinashift.inference import detail, fidelity
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import checkpoint_hash
from retinashift.inference.self_check import BLOCK, DARK, FADE, LEVEL, NEAR, RIM, WIDEN
from retinashift.models.uncertainty_head import LEAST, MOST, UncertaintyHead

OPSET = 17  # the newest that OpenVINO, onnxruntime-web and chaiNNer all read; GELU is written out by Erf
FACTORS = "factors"
"""Name of the factors of detail and uncertainty, (B, 2, H, W). All pixels decide them; a tile is given its part."""
DETAIL, MAP = np.eye(2)  # the channels of these factors


@dataclass
class Graph:
    """Nodes and constants of an ONNX graph under construction."""

    half: bool  # store weights as float16, which are cast back to float32 when the graph is loaded
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, content: Tensor | np.ndarray | float) -> str:
        """Name of a weight (a tensor), a number, or an array, whose whole numbers are sizes."""
        from onnx import numpy_helper

        narrow = self.half and isinstance(content, Tensor)
        array = content.detach().float().cpu().numpy() if isinstance(content, Tensor) else np.asarray(content)
        kind = np.float16 if narrow else np.int64 if array.ndim and array.dtype == np.int64 else np.float32
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.astype(kind), name))
        return Value(self, name).op("Cast", to=1).name if narrow else name


@dataclass(frozen=True)
class Value:
    """A tensor of a graph; arithmetic and methods append nodes to it."""

    graph: Graph
    name: str

    def op(self, kind: str, *others: Operand, named: str = "", **attributes: Any) -> Value:
        """Append a node with this value as its first input."""
        from onnx import helper

        inputs = [self.name, *(o.name if isinstance(o, Value) else self.graph.constant(o) for o in others)]
        name = named or f"{kind.lower()}_{len(self.graph.nodes)}"
        self.graph.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return Value(self.graph, name)

    __add__, __sub__ = partialmethod(op, "Add"), partialmethod(op, "Sub")
    __mul__, __truediv__ = partialmethod(op, "Mul"), partialmethod(op, "Div")
    __neg__ = partialmethod(op, "Neg")

    def above(self, limit: Operand) -> Value:
        """1 where this is greater, else 0."""
        return self.op("Greater", limit).op("Cast", to=1)

    def within(self, least: Operand, most: Operand) -> Value:
        """Cut off at two limits."""
        return self.op("Max", least).op("Min", most)

    def conv(self, kernel: np.ndarray | Tensor, *bias: Tensor, edge: bool = False, **more: Any) -> Value:
        """A convolution, (O, I, k, l), to the same height and width; beyond the border lie zeros, or the edge."""
        rows, columns = (side // 2 for side in kernel.shape[2:])
        given = self.op("Pad", np.array([0, 0, rows, columns] * 2), mode="edge") if edge else self
        geometry = {"kernel_shape": [*kernel.shape[2:]], "pads": [0] * 4 if edge else [rows, columns] * 2, "group": 1}
        return given.op("Conv", kernel, *bias, **(geometry | more))

    def gelu(self) -> Value:
        """x/2 * (1 + erf(x / sqrt 2)), the exact form, in the pattern that runtimes fuse."""
        return self * ((self / math.sqrt(2)).op("Erf") + 1.0) * 0.5

    def pool(self, side: int, kind: str = "MaxPool") -> Value:
        """Largest value, or the mean, of the side x side pixels around each one."""
        return self.op(kind, kernel_shape=[side] * 2, pads=[side // 2] * 4, strides=[1, 1])

    def over(self, kind: str, *axes: int) -> Value:
        """Mean or largest value over some axes, which stay with length 1."""
        return self.op(f"Reduce{kind}", axes=[*axes], keepdims=1)

    def shuffled(self, scale: int) -> Value:
        """(B, C*s*s, H, W) -> (B, C, H*s, W*s)."""
        return self.op("DepthToSpace", blocksize=scale, mode="CRD")


Operand = Value | Tensor | np.ndarray | float


def faithful_graph(pipeline: ResShiftPipeline, half: bool = False) -> Any:
    """The faithful mode, on 8-bit input, of a checkpoint with a `LightNet` in pixel space, as an `onnx.ModelProto`.

    Its input `input` is (B, 3, H, W) float32 in [0, 1], its output `output` (B, 3, scale*H, scale*W) float32 in
    [0, 1]; B, H and W are free. With an uncertainty head there is a second output, `uncertainty`: sigma in shares of
    full scale, (B, 1, scale*H, scale*W).

    Args:
        half: store weights as float16, which halves the file; arithmetic stays float32.

    Raises:
        ValueError: the checkpoint has another architecture, or no faithful mode.
    """
    net, scale, config = pipeline.denoiser, pipeline.config.scale, pipeline.config
    checked = config.check_measure in (None, "value")
    if not hasattr(net, "folded") or config.distilled is True or pipeline.scheduler.config.clip_x0 or not checked:
        raise ValueError("ONNX export is for checkpoints such as x4: a LightNet with a faithful mode")
    graph = Graph(half)
    lr = Value(graph, "input") * 2.0 - 1.0  # (B, 3, H, W) in [-1, 1]
    y0 = _enlarge(lr, scale)  # (B, 3, H*s, W*s)
    (read, bias), *blocks, write = net.folded(len(pipeline.scheduler) - 1)  # weight and bias of each convolution
    h = skip = lr.conv(read[:, :3], bias)  # (B, width, H, W)
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        h = h + h.conv(*first).gelu().conv(*second)
    features = h + skip
    estimate = y0 - features.conv(*write).shuffled(scale)  # (B, 3, H*s, W*s); e0 is predicted at x_t = y0
    weight, returned = _bicubic_share(estimate, lr, config.check_threshold * LEVEL, scale)
    x0 = estimate + weight * (y0 - estimate)
    calibration = pipeline.calibration
    curves = [(config.detail_curves or {}).get("mean"), calibration.softness if calibration else None]
    factors = _factors(lr, curves).op("Identity", named=FACTORS) if any(curves) else None
    if factors and curves[0]:
        x0 = y0 + _repeat(factors.conv(DETAIL.reshape(1, 2, 1, 1)), scale) * (x0 - y0)
    cell, near = (-returned + 1.0) * (fidelity.CELL * LEVEL), _limits(lr)  # (B, 1, H, W), twice (B, 3, H, W)
    limits = [_repeat(limit, scale) for limit in near]
    x0 = x0.within(*limits)
    for _ in range(config.back_projections):
        x0 = (x0 + _enlarge(_change(x0, lr, cell, near, scale), scale)).within(*limits)
    outputs = [((x0 + 1.0) * 0.5).op("Identity", named="output")]
    if calibration is not None:
        softness = factors.conv(MAP.reshape(1, 2, 1, 1)) if factors and curves[1] else 1.0
        sigma = (_scale(pipeline.uncertainty_head, features, lr, softness) * calibration.factor).shuffled(scale)
        outputs.append(_marked(sigma, y0 - estimate, weight, scale).op("Identity", named="uncertainty"))
    return _model(graph, [value.name for value in outputs], pipeline)


def _model(graph: Graph, outputs: list[str], pipeline: ResShiftPipeline) -> Any:
    """The graph with its inputs, outputs and metadata, checked."""
    from onnx import checker, helper, parser

    sides = [f"float[batch, {3 if name == 'output' else 1}, height_out, width_out] {name}" for name in outputs]
    whole = parser.parse_graph(f"retinashift (float[batch, 3, height, width] input) => ({', '.join(sides)}) {{}}")
    whole.node.extend(graph.nodes)
    whole.initializer.extend(graph.constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(whole, opset_imports=[opset], producer_name="retinashift", ir_version=8)
    helper.set_model_props(model, {
        "scale": str(pipeline.config.scale), "checkpoint": checkpoint_hash(pipeline),
        "licence": "Apache-2.0; the checkpoint is for research use", "use": "research use only, not for diagnosis",
    })  # fmt: skip
    checker.check_model(model)
    return model


def _scale(head: UncertaintyHead, features: Value, lr: Value, softness: Value | float) -> Value:
    """The uncalibrated scale, (B, s*s, H, W), the least where the input is flat."""
    read, write = ([*layer.parameters()] for layer in (head.read, head.write))  # weight and bias each
    scale = features.conv(*read).gelu().conv(*write).within(LEAST, MOST).op("Exp") * softness
    detailed = (lr.pool(5) + (-lr).pool(5)).over("Max", 1).op("Greater", 0.0)
    return detailed.op("Where", scale, math.exp(LEAST))


def _marked(sigma: Value, residual: Value, weight: Value, scale: int) -> Value:
    """`SelfCheck.mark`: the map raised to the difference of estimate and bicubic where bicubic was returned."""
    difference = residual.op("Abs").over("Max", 1).op("Min", 2.0) * 0.5 * weight.above(0.0)
    largest = difference.op("MaxPool", kernel_shape=[scale] * 2, strides=[scale] * 2)  # (B, 1, H, W)
    return sigma.op("Max", _repeat(largest, scale))


def _enlarge(x: Value, scale: int, kernel: Callable[[np.ndarray], np.ndarray] = keys_cubic, channels: int = 3) -> Value:
    """Interpolation, (B, C, H, W) -> (B, C, H*s, W*s), by a kernel that is 0 beyond 2; by default Pillow's bicubic."""
    phase = (np.arange(scale) + 0.5) / scale - 0.5
    line = kernel(np.arange(-2, 3) - phase[:, None])  # (s, 5)
    kernels = np.einsum("ai,bj->abij", line, line).reshape(scale**2, 1, 5, 5)
    made = x.conv(np.tile(kernels, (channels, 1, 1, 1)), group=channels).shuffled(scale)
    return made / _ones(x).conv(kernels).shuffled(scale)


def _repeat(x: Value, scale: int) -> Value:
    """(B, C, H, W) -> (B, C, H*s, W*s), every pixel repeated."""
    return x.op("Concat", *[x] * (scale**2 - 1), axis=1).op("DepthToSpace", blocksize=scale, mode="DCR")


def _reduce(x: Value, scale: int, axis: int) -> Value:
    """Pillow's bicubic reduction of (B, 3, H, W) along its height (axis 0) or width (axis 1)."""
    before = 3 * scale // 2
    kernel = keys_cubic((np.arange(4 * scale) - before + 0.5) / scale - 0.5).reshape((-1, 1) if axis == 0 else (1, -1))
    sides = [(before, scale), (0, 1)][:: 1 if axis == 0 else -1]
    geometry: dict[str, Any] = {"pads": [pad for pad, _ in sides] * 2, "strides": [stride for _, stride in sides]}
    sums = _ones(x).conv(kernel[None, None], **geometry)
    return x.conv(np.tile(kernel, (3, 1, 1, 1)), group=3, **geometry) / sums


def _ones(x: Value) -> Value:
    """Ones of the size of a picture, (B, 1, H, W)."""
    return x.over("Max", 1) * 0.0 + 1.0


def _bicubic_share(estimate: Value, lr: Value, threshold: float, scale: int) -> tuple[Value, Value]:
    """Where `SelfCheck` ("value") returns to bicubic: its share, (B, 1, H*s, W*s); 1 where any is, (B, 1, H, W)."""
    reduced = _reduce(_reduce(estimate.within(-1.0, 1.0), scale, 1), scale, 0)
    error = (reduced - lr).op("Abs").over("Max", 1)  # (B, 1, H, W)
    allowed = (_near_aperture(lr) + 1.0) * threshold
    near = error.above(allowed).pool(2 * NEAR + 1)
    bad = error.above(allowed * (near * -0.5 + 1.0))  # beside an excess, half the threshold counts
    weight = bad.pool(2 * (WIDEN + FADE) + 1).pool(2 * FADE + 1, "AveragePool")
    return _enlarge(weight, scale, lambda x: np.maximum(0, 1 - np.abs(x)), 1), weight.above(0.0).pool(3)


def _near_aperture(lr: Value) -> Value:
    """`near_aperture`, (B, 1, H, W)."""
    bright = lr.over("Max", 1).above(DARK * LEVEL - 1).op("Pad", np.array([0, 0, BLOCK, BLOCK] * 2))
    dark = -bright.op("MaxPool", kernel_shape=[BLOCK] * 2)
    return dark.op("MaxPool", kernel_shape=[2 * RIM + BLOCK] * 2, pads=[RIM - 1] * 4) + 1.0


def _factors(lr: Value, curves: Sequence[detail.Curve | None]) -> Value:
    """`factor_at` of the input's `finest_energy`, (B, 2, H, W): of the first curve in its `inner_field`, else 1."""
    luma = lr.conv(np.reshape(LUMA, (1, 3, 1, 1)) * 127.5) + 127.5  # (B, 1, H, W)
    line = np.asarray(detail.SIXTH) / np.abs(detail.SIXTH).sum()
    ripples = luma.conv(np.outer(line, line)[None, None], edge=True)
    dark = -luma.above(luma.over("Mean", 2, 3) * detail.BRIGHT) + 1.0
    inside = -dark.pool(2 * detail.EDGE + 1) + 1.0
    share = inside.over("Mean", 2, 3)
    nothing = -share.above(1e-9) + 1.0  # then nothing is known to be soft
    power = (inside * ripples * ripples).over("Mean", 2, 3) + nothing * 1e9
    energy = (power / (share + nothing)).op("Max", 1e-9).op("Log")
    both = inside.conv(np.zeros((2, 1, 1, 1))) + 1.0
    for curve, place, channel in zip(curves, (inside, inside * 0.0 + 1.0), (DETAIL, MAP), strict=True):
        if curve:
            factor = nothing * 0.0 + (curve[0][1] - 1)  # less 1
            for (start, low), (end, high) in pairwise(curve):
                factor = factor + (energy.within(start, end) - start) * ((high - low) / (end - start))
            both = both + (place * factor).conv(channel.reshape(2, 1, 1, 1))
    return both


def _limits(lr: Value) -> tuple[Value, Value]:
    """`value_limits`, (B, 3, H, W) both."""
    most, least = lr.pool(5), -(-lr).pool(5)
    room = (most - least) * fidelity.SPAN + (fidelity.LEVELS - fidelity.ROUNDING) * LEVEL
    return (least - room).op("Max", -1.0), (most + room).op("Min", 1.0)


def _change(x0: Value, lr: Value, cell: Value, limits: tuple[Value, Value], scale: int) -> Value:
    """What, interpolated and added, brings (B, 3, H*s, W*s) into the rounding cell; see `back_project_rows`."""
    levels = ((x0 + 1.0) * 127.5).op("Round").within(0.0, 255.0)
    narrow = _reduce(levels, scale, 1).op("Round").within(0.0, 255.0)  # Pillow reduces the width first
    missing = left = lr - (_reduce(narrow, scale, 0) / 127.5 - 1.0)
    weights = np.asarray(fidelity.spread_weights(scale))
    kernel = np.tile(np.outer(weights, weights), (3, 1, 1, 1))
    change = missing * 0.0
    for step in range(fidelity.SOLVER_STEPS):
        if step:
            left = missing - change.conv(kernel, edge=True, group=3)
        change = change + (left - left.within(-cell, cell)) * fidelity.RELAXATION
    limit = missing.op("Greater", 0.0).op("Where", *limits[::-1])
    held = x0.op("Equal", _repeat(limit, scale)).op("Cast", to=1)
    free = (-held.op("AveragePool", kernel_shape=[scale] * 2, strides=[scale] * 2) + 1.0).op("Max", fidelity.FREE)
    change = missing.op("Abs").op("Greater", cell).op("Where", change / free, change)
    return cell.op("Greater", 0.0).op("Where", change, missing * fidelity.CLOSED)


def export_onnx(pipeline: ResShiftPipeline, path: Path, half: bool = False) -> None:
    """Write `faithful_graph` to a file. ValueError as there, if onnx is not installed, or if the file exists."""
    if path.exists():
        raise ValueError(f"{path} exists already; choose another name with --onnx")
    if find_spec("onnx") is None:
        raise ValueError("ONNX export needs onnx: pip install 'retinashift[onnx]'")
    replace_file(path, faithful_graph(pipeline, half).SerializeToString())
