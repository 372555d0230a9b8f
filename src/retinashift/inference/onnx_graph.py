"""The faithful mode as one ONNX graph, for onnxruntime, OpenVINO, browsers and any tool that opens ONNX upscalers.

The faithful mode is one network call from x_T = y0. The noisy state therefore enters as zero and the step is a
constant: the time embedding folds into the convolutions, and a stack of 3x3 convolutions remains. Both bicubic kernels
are convolutions divided by their sum inside the picture, because the runtimes' own resize operators differ at the
border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinashift.imaging.degradation.bicubic import keys_cubic
from retinashift.imaging.files import replace_file
from retinashift.imaging.fundus import LUMA
from retinashift.inference.detail import BRIGHT, EDGE, SIXTH, Curve
from retinashift.inference.fidelity import (
    CELL,
    CLOSED,
    LEVELS,
    RELAXATION,
    ROUNDING,
    SOLVER_STEPS,
    SPAN,
    SPREAD,
    spread_weights,
)
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.record import checkpoint_hash
from retinashift.inference.self_check import FADE, LEVEL, NEAR, WIDEN
from retinashift.models.uncertainty_head import LEAST, MOST, UncertaintyHead

OPSET = 17
"""The newest operator set that OpenVINO, onnxruntime-web and chaiNNer all read; GELU is written out by Erf."""


@dataclass
class Graph:
    """Nodes and constants of an ONNX graph under construction; every method returns the name of its result."""

    half: bool = False
    """Store weights as float16; they are cast back to float32 when the graph is loaded."""
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its output."""
        from onnx import helper

        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray | float, *, weight: bool = False) -> str:
        """A constant; `weight` marks those that `half` may store as float16."""
        from onnx import numpy_helper

        array = np.asarray(value, np.float32) if not isinstance(value, np.ndarray) else value
        narrow = weight and self.half
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.astype(np.float16) if narrow else array, name))
        return self.op("Cast", name, to=1) if narrow else name

    def conv(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None, **attributes: Any) -> str:
        """A convolution with constant weights (O, I, k, l)."""
        inputs = [x, self.constant(weight.detach().float().cpu().numpy(), weight=True)]
        if bias is not None:
            inputs.append(self.constant(bias.detach().float().cpu().numpy(), weight=True))
        return self.op("Conv", *inputs, **attributes)

    def conv3(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        """A 3x3 convolution with zero padding, (B, I, h, w) -> (B, O, h, w)."""
        return self.conv(x, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def gelu(self, x: str) -> str:
        """x/2 * (1 + erf(x / sqrt 2)), the exact form, in the pattern that runtimes fuse."""
        erf = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.constant(1.0))), self.constant(0.5))


Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Weight and bias of each convolution, as `LightNet.folded` gives them."""


def faithful_graph(
    pipeline: ResShiftPipeline, half: bool = False, network: Callable[[Graph, Layers, str], str] | None = None
) -> Any:
    """The faithful mode, on 8-bit input, of a checkpoint with a `LightNet` in pixel space, as an `onnx.ModelProto`.

    Its input `input` is (B, 3, H, W) float32 in [0, 1], its output `output` (B, 3, scale*H, scale*W) float32 in
    [0, 1]; B, H and W are free. With an uncertainty head there is a second output, `uncertainty`: sigma in shares of
    full scale, (B, 1, scale*H, scale*W).

    Args:
        half: store weights as float16, which halves the file; arithmetic stays float32.
        network: another way to compute e0, for runtimes that it is faster in; then there is no second output.

    Raises:
        ValueError: the checkpoint has another architecture, or no faithful mode.
    """
    from onnx import TensorProto, checker, helper

    net, scale = pipeline.denoiser, pipeline.config.scale
    checked = pipeline.config.check_measure in (None, "value")
    if not hasattr(net, "folded") or pipeline.config.distilled or pipeline.scheduler.config.clip_x0 or not checked:
        raise ValueError("ONNX export is for checkpoints such as x4: a LightNet with a faithful mode")
    graph = Graph(half)
    one = graph.constant(1.0)
    lr = graph.op("Sub", graph.op("Mul", "input", graph.constant(2.0)), one)  # (B, 3, H, W) in [-1, 1]
    inside = _ones_like(graph, "input")  # (1, 1, H, W)
    y0 = _upsample(graph, lr, inside, 3, scale)  # (B, 3, H*s, W*s)
    layers = net.folded(len(pipeline.scheduler) - 1)
    e0, features = plain_network(graph, layers, lr) if network is None else (network(graph, layers, lr), "")
    residual = graph.op("DepthToSpace", e0, blocksize=scale, mode="CRD")
    estimate = graph.op("Sub", y0, residual)  # (B, 3, H*s, W*s)
    x0, weight, returned = _checked(graph, estimate, y0, lr, pipeline.config.check_threshold * LEVEL, scale)
    cell = graph.op("Mul", graph.op("Sub", one, returned), graph.constant(CELL * LEVEL))  # (B, 1, H, W)
    if curve := (pipeline.config.detail_curves or {}).get("mean"):
        factor = _factor(graph, lr, curve)  # (B, 1, 1, 1)
        x0 = graph.op("Add", y0, graph.op("Mul", factor, graph.op("Sub", x0, y0)))
    limits = _limits(graph, lr, scale)
    x0 = _within(graph, x0, limits)
    for _ in range(pipeline.config.back_projections):
        change = _change(graph, x0, lr, cell, scale)  # (B, 3, H, W)
        x0 = _within(graph, graph.op("Add", x0, _upsample(graph, change, inside, 3, scale)), limits)
    halved = graph.op("Mul", graph.op("Add", x0, one), graph.constant(0.5))
    graph.nodes.append(helper.make_node("Identity", [halved], ["output"]))
    value = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("output", value, ["batch", 3, "height_out", "width_out"])]
    if features and pipeline.calibration is not None:
        sigma = _sigma(graph, features, lr, pipeline.uncertainty_head, pipeline.calibration.factor, scale)
        sigma = _marked(graph, sigma, estimate, y0, weight, scale)
        graph.nodes.append(helper.make_node("Identity", [sigma], ["uncertainty"]))
        outputs.append(helper.make_tensor_value_info("uncertainty", value, ["batch", 1, "height_out", "width_out"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "retinashift",
            [helper.make_tensor_value_info("input", value, ["batch", 3, "height", "width"])],
            outputs,
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid(d, 1 if d else OPSET) for d in sorted({n.domain for n in graph.nodes})],
        producer_name="retinashift",
        ir_version=8,
    )
    facts = {
        "scale": str(scale),
        "checkpoint": checkpoint_hash(pipeline),
        "licence": "Apache-2.0; the checkpoint is for research use",
        "use": "research use only, not for diagnosis",
    }
    helper.set_model_props(model, facts)
    checker.check_model(model)
    return model


def plain_network(graph: Graph, layers: Layers, lq: str) -> tuple[str, str]:
    """The residual e0 = y0 - x0 at x_t = y0, (B, C*f*f, H, W), of `lq`, (B, C, H, W); and what its last layer reads."""
    read, *blocks, write = layers
    h = skip = graph.conv3(lq, *read)
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        h = graph.op("Add", h, graph.conv3(graph.gelu(graph.conv3(h, *first)), *second))
    features = graph.op("Add", h, skip)
    return graph.conv3(features, *write), features


def _sigma(graph: Graph, features: str, lr: str, head: UncertaintyHead, factor: float, scale: int) -> str:
    """The uncertainty map, (B, 1, H*s, W*s) in shares of full scale, the least where the input is flat."""
    hidden = graph.gelu(graph.conv3(features, head.read.weight, head.read.bias))
    log_scale = graph.conv3(hidden, head.write.weight, head.write.bias)  # (B, s*s, H, W)
    log_scale = graph.op("Clip", log_scale, graph.constant(LEAST), graph.constant(MOST))
    window = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [1, 1]}
    span = graph.op("Add", graph.op("MaxPool", lr, **window), graph.op("MaxPool", graph.op("Neg", lr), **window))
    detailed = graph.op("Greater", graph.op("ReduceMax", span, axes=[1], keepdims=1), graph.constant(0.0))
    log_scale = graph.op("Where", detailed, log_scale, graph.constant(LEAST))
    sigma = graph.op("Mul", graph.op("Exp", log_scale), graph.constant(factor))
    return graph.op("DepthToSpace", sigma, blocksize=scale, mode="CRD")


def _marked(graph: Graph, sigma: str, estimate: str, y0: str, weight: str, scale: int) -> str:
    """`SelfCheck.mark`: the map raised to the difference of estimate and bicubic where bicubic was returned."""
    difference = graph.op("ReduceMax", graph.op("Abs", graph.op("Sub", y0, estimate)), axes=[1], keepdims=1)
    difference = graph.op("Mul", graph.op("Min", difference, graph.constant(2.0)), graph.constant(0.5))
    returned = graph.op("Cast", graph.op("Greater", weight, graph.constant(0.0)), to=1)
    block = {"kernel_shape": [scale, scale], "strides": [scale, scale]}
    largest = graph.op("MaxPool", graph.op("Mul", difference, returned), **block)  # (B, 1, H, W)
    return graph.op("Max", sigma, _repeat(graph, largest, scale, channels=1))


def _upsample(graph: Graph, x: str, inside: str, channels: int, scale: int) -> str:
    """Bicubic interpolation of (B, C, H, W) to (B, C, H*scale, W*scale), as `upsample_bicubic`."""
    phase, tap = (np.arange(scale) + 0.5) / scale, np.arange(-2, 3) + 0.5
    kernel = keys_cubic(tap - phase[:, None])  # (scale, 5)
    kernels = torch.from_numpy(np.einsum("ai,bj->abij", kernel, kernel).reshape(scale**2, 1, 5, 5))

    def spread(x: str, channels: int) -> str:
        geometry = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "group": channels}
        conv = graph.op("Conv", x, graph.constant(kernels.repeat(channels, 1, 1, 1).float().numpy()), **geometry)
        return graph.op("DepthToSpace", conv, blocksize=scale, mode="CRD")

    return graph.op("Div", spread(x, channels), spread(inside, 1))


def _checked(graph: Graph, x0: str, y0: str, lr: str, threshold: float, scale: int) -> tuple[str, str, str]:
    """`SelfCheck` with the measure "value": bicubic (y0) where the estimate, reduced, contradicts the input.

    Returns:
        The result, the share of bicubic in each pixel, (B, 1, H*s, W*s), and 1 where there is any, (B, 1, H, W).
    """
    clipped = graph.op("Clip", x0, graph.constant(-1.0), graph.constant(1.0))
    error = graph.op("Abs", graph.op("Sub", _reduce(graph, _reduce(graph, clipped, scale, 1), scale, 0), lr))
    largest = graph.op("ReduceMax", error, axes=[1], keepdims=1)  # (B, 1, H, W)

    def above(limit: str) -> str:
        return graph.op("Cast", graph.op("Greater", largest, limit), to=1)

    side = 2 * NEAR + 1
    near = above(graph.constant(threshold))
    near = graph.op("MaxPool", near, kernel_shape=[side] * 2, pads=[NEAR] * 4, strides=[1, 1])
    halved = graph.op("Mul", near, graph.constant(threshold / 2))
    bad = above(graph.op("Sub", graph.constant(threshold), halved))  # beside an excess, half the threshold counts
    wide, fade = 2 * (WIDEN + FADE) + 1, 2 * FADE + 1
    bad = graph.op("MaxPool", bad, kernel_shape=[wide] * 2, pads=[WIDEN + FADE] * 4, strides=[1, 1])
    weight = graph.op("AveragePool", bad, kernel_shape=[fade] * 2, pads=[FADE] * 4, strides=[1, 1])
    some = graph.op("Cast", graph.op("Greater", weight, graph.constant(0.0)), to=1)
    returned = graph.op("MaxPool", some, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    weight = _bilinear(graph, weight, scale)  # (B, 1, H*s, W*s)
    return graph.op("Add", x0, graph.op("Mul", weight, graph.op("Sub", y0, x0))), weight, returned


def _factor(graph: Graph, lr: str, curve: Curve) -> str:
    """`factor_at` of the input's `finest_energy`, (B, 1, 1, 1)."""
    weights = np.asarray(LUMA, np.float32).reshape(1, 3, 1, 1) * np.float32(127.5)
    luma = graph.op("Add", graph.op("Conv", lr, graph.constant(weights)), graph.constant(127.5))  # (B, 1, H, W)
    line = np.asarray(SIXTH, np.float32) / sum(map(abs, SIXTH))
    padded = graph.op("Pad", luma, graph.constant(np.array([0, 0, 3, 3] * 2, np.int64)), mode="edge")
    ripples = graph.op("Conv", padded, graph.constant(np.outer(line, line)[None, None].astype(np.float32)))
    mean = graph.op("ReduceMean", luma, axes=[2, 3], keepdims=1)
    bright = graph.op("Greater", luma, graph.op("Mul", mean, graph.constant(BRIGHT)))
    dark = graph.op("Cast", graph.op("Not", bright), to=1)
    border = graph.op("MaxPool", dark, kernel_shape=[2 * EDGE + 1] * 2, pads=[EDGE] * 4, strides=[1, 1])
    inside = graph.op("Sub", graph.constant(1.0), border)

    def total(x: str) -> str:
        return graph.op("ReduceMean", x, axes=[2, 3], keepdims=1)

    power = total(graph.op("Mul", inside, graph.op("Mul", ripples, ripples)))
    share = total(inside)
    nothing = graph.op("Cast", graph.op("Less", share, graph.constant(1e-9)), to=1)
    share = graph.op("Add", share, nothing)
    power = graph.op("Add", power, graph.op("Mul", nothing, graph.constant(1e9)))  # then nothing is known to be soft
    energy = graph.op("Log", graph.op("Max", graph.op("Div", power, share), graph.constant(1e-9)))
    factor = graph.constant(curve[0][1])
    for (start, low), (end, high) in pairwise(curve):
        within = graph.op("Clip", energy, graph.constant(start), graph.constant(end))
        beyond = graph.op("Sub", within, graph.constant(start))
        factor = graph.op("Add", factor, graph.op("Mul", beyond, graph.constant((high - low) / (end - start))))
    return factor


def _limits(graph: Graph, lr: str, scale: int) -> tuple[str, str]:
    """`value_limits`, each value repeated scale times each way: (B, 3, H*s, W*s) both."""
    window = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [1, 1]}
    most = graph.op("MaxPool", lr, **window)
    least = graph.op("Neg", graph.op("MaxPool", graph.op("Neg", lr), **window))
    span = graph.op("Mul", graph.op("Sub", most, least), graph.constant(SPAN))
    room = graph.op("Add", span, graph.constant((LEVELS - ROUNDING) * LEVEL))
    low = graph.op("Max", graph.op("Sub", least, room), graph.constant(-1.0))
    high = graph.op("Min", graph.op("Add", most, room), graph.constant(1.0))
    return _repeat(graph, low, scale), _repeat(graph, high, scale)


def _within(graph: Graph, x: str, limits: tuple[str, str]) -> str:
    return graph.op("Min", graph.op("Max", x, limits[0]), limits[1])


def _repeat(graph: Graph, x: str, scale: int, channels: int = 3) -> str:
    """(B, C, H, W) -> (B, C, H*scale, W*scale), every pixel repeated."""
    ones = graph.constant(np.ones((channels * scale**2, 1, 1, 1), np.float32))
    spread = graph.op("Conv", x, ones, kernel_shape=[1, 1], group=channels)
    return graph.op("DepthToSpace", spread, blocksize=scale, mode="CRD")


def _bilinear(graph: Graph, x: str, scale: int) -> str:
    """Bilinear interpolation of (B, 1, H, W) by `scale`, edges repeated."""
    position = (np.arange(scale) + 0.5) / scale - 0.5
    kernel = np.maximum(0, 1 - np.abs(np.arange(-1, 2) - position[:, None]))  # (scale, 3)
    kernels = np.einsum("ai,bj->abij", kernel, kernel).reshape(scale**2, 1, 3, 3).astype(np.float32)
    padded = graph.op("Pad", x, graph.constant(np.array([0, 0, 1, 1] * 2, np.int64)), mode="edge")
    return graph.op(
        "DepthToSpace",
        graph.op("Conv", padded, graph.constant(kernels), kernel_shape=[3, 3]),
        blocksize=scale,
        mode="CRD",
    )


def _reduce(graph: Graph, x: str, scale: int, axis: int) -> str:
    """Antialiased bicubic reduction of (B, 3, H, W) along its height (axis 0) or width (axis 1)."""
    before = 3 * scale // 2
    tap = (np.arange(4 * scale) - before + 0.5) / scale - 0.5
    kernel = keys_cubic(tap)
    kernel /= kernel.sum()  # (4*scale,)
    shape, pads, strides = [1, 1], [0, 0, 0, 0], [1, 1]
    shape[axis], strides[axis] = 4 * scale, scale
    pads[axis] = pads[axis + 2] = before

    def narrow(x: str, channels: int) -> str:
        weight = np.tile(kernel.reshape(1, 1, *shape), (channels, 1, 1, 1)).astype(np.float32)
        geometry = {"kernel_shape": shape, "pads": pads, "strides": strides, "group": channels}
        return graph.op("Conv", x, graph.constant(weight), **geometry)

    return graph.op("Div", narrow(x, 3), narrow(_ones_like(graph, x), 1))


def _change(graph: Graph, x: str, lr: str, cell: str, scale: int) -> str:
    """What brings (B, 3, H*s, W*s), enlarged and added, into the rounding cell of the input, see `back_project`."""
    half, one = graph.constant(127.5), graph.constant(1.0)

    def rounded(levels: str) -> str:
        return graph.op("Clip", graph.op("Round", levels), graph.constant(0.0), graph.constant(255.0))

    levels = rounded(graph.op("Mul", graph.op("Add", x, one), half))
    reduced = _reduce(graph, rounded(_reduce(graph, levels, scale, 1)), scale, 0)  # Pillow reduces the width first
    missing = left = graph.op("Sub", lr, graph.op("Sub", graph.op("Div", reduced, half), one))
    weights = np.asarray(spread_weights(scale), np.float32)
    kernel = graph.constant(np.tile(np.outer(weights, weights), (3, 1, 1, 1)))
    pads = graph.constant(np.array([0, 0, SPREAD, SPREAD] * 2, np.int64))
    change = ""
    for _ in range(SOLVER_STEPS):
        if change:
            padded = graph.op("Pad", change, pads, mode="edge")
            left = graph.op("Sub", missing, graph.op("Conv", padded, kernel, group=3))
        inside = graph.op("Max", graph.op("Min", left, cell), graph.op("Neg", cell))
        step = graph.op("Mul", graph.op("Sub", left, inside), graph.constant(RELAXATION))
        change = graph.op("Add", change, step) if change else step
    closed = graph.op("Mul", missing, graph.constant(CLOSED))
    return graph.op("Where", graph.op("Greater", cell, graph.constant(0.0)), change, closed)


def _ones_like(graph: Graph, x: str) -> str:
    """(1, 1, H, W) of ones, of the size of (B, C, H, W)."""
    size = graph.op("Slice", graph.op("Shape", x), *(graph.constant(np.array([n], np.int64)) for n in (2, 4)))
    shape = graph.op("Concat", graph.constant(np.array([1, 1], np.int64)), size, axis=0)
    return graph.op("Expand", graph.constant(1.0), shape)


def export_onnx(pipeline: ResShiftPipeline, path: Path, half: bool = False) -> None:
    """Write `faithful_graph` to a file. ValueError as there, if onnx is not installed, or if the file exists."""
    if path.exists():
        raise ValueError(f"{path} exists already; choose another name with --onnx")
    if find_spec("onnx") is None:
        raise ValueError("ONNX export needs onnx: pip install 'retinashift[onnx]'")
    replace_file(path, faithful_graph(pipeline, half).SerializeToString())
