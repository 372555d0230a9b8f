"""The network with about half the multiplications, for processors without wide vector units, such as WebAssembly's.

Winograd's F(4, 3) along columns (Lavin and Gray 2016, arXiv:1509.09308): four rows of a convolution with three taps
take six products instead of twelve. Six convolutions of 1x3 replace a 3x3 one, and additions go before and after
them. Values stay float32 and change by rounding only. All layers keep their rows apart in four pictures, rows 0, 4, 8,
... in the first, so that nothing is rearranged between layers.
"""

from __future__ import annotations

import numpy as np
import torch

from retinashift.inference.onnx_graph import Graph

ROWS = 4
KERNELS = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], np.float32)  # fmt: skip
"""G of F(4, 3): the six kernels from the three rows of one."""

Layer = tuple[torch.Tensor, torch.Tensor]
Rows = list[str]
"""Names of four pictures (B, C, h, W): the rows 0, 4, ...; 1, 5, ...; 2, 6, ...; 3, 7, ... of one of 4h rows."""


def winograd_network(graph: Graph, layers: list[Layer], lq: str) -> str:
    """What `onnx_graph.plain_network` computes: the residual e0 at x_t = y0, (B, C*f*f, H, W)."""
    read, *blocks, write = layers
    whole = graph.conv3(lq, *read)  # (B, C, H, W)
    size = graph.op("Shape", whole)
    height, width = (graph.op("Slice", size, _whole(graph, n), _whole(graph, n + 1)) for n in (2, 3))
    missing = graph.op("Mod", graph.op("Sub", _whole(graph, 0), height), _whole(graph, ROWS))
    zeros = _whole(graph, 0, 0)
    below = graph.op("Concat", zeros, zeros, zeros, missing, _whole(graph, 0), axis=0)
    h = skip = _split(graph, graph.op("Pad", whole, below))
    column = graph.op("Concat", _whole(graph, 1, 1), height, _whole(graph, 1), axis=0)
    there = graph.op("Expand", graph.constant(1.0), column)
    inside = _split(graph, graph.op("Pad", there, below))  # rows that are there, (1, 1, h, 1): what is below stays zero
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        middle = [graph.op("Gelu", x, domain="com.microsoft") for x in _conv(graph, h, *first)]  # onnxruntime's own
        change = _conv(graph, _each(graph, "Mul", middle, inside), *second)
        h = _each(graph, "Mul", _each(graph, "Add", h, change), inside)
    e0 = _conv(graph, _each(graph, "Add", h, skip), *write)
    spread = [graph.op("Unsqueeze", x, _whole(graph, 3)) for x in e0]  # (B, C, h, 1, W) each
    channels = graph.op("Slice", size, _whole(graph, 0), _whole(graph, 1))
    shape = graph.op("Concat", channels, _whole(graph, len(write[1]), -1), width, axis=0)
    joined = graph.op("Reshape", graph.op("Concat", *spread, axis=3), shape)  # (B, C, 4h, W)
    return graph.op("Slice", joined, _whole(graph, 0), height, _whole(graph, 2))  # (B, C, H, W)


def _conv(graph: Graph, x: Rows, weight: torch.Tensor, bias: torch.Tensor) -> Rows:
    """A 3x3 convolution with zero padding."""

    def add(a: str, b: str) -> str:
        return graph.op("Add", a, b)

    def sub(a: str, b: str) -> str:
        return graph.op("Sub", a, b)

    def times(a: str, factor: float) -> str:
        return graph.op("Mul", a, graph.constant(factor))

    d1, d2, d3, d4 = x
    d0, d5 = _moved(graph, d4, 1), _moved(graph, d1, -1)
    near, far = sub(d4, d2), times(sub(d3, d1), 2)
    even, odd = sub(d4, times(d2, 4)), sub(d3, times(d1, 4))
    seen = [add(times(sub(d0, d2), 4), near), add(even, odd), sub(even, odd), add(near, far), sub(near, far),
        sub(sub(d5, d3), times(far, 2))]  # fmt: skip
    taps = weight.detach().float().cpu().permute(2, 0, 1, 3).flatten(1).numpy()  # (3, O*I*3): rows of the kernel
    packed, shape = graph.constant(taps, weight=True), _whole(graph, *weight.shape[:2], 1, 3)
    offset = graph.constant(bias.detach().float().cpu().numpy(), weight=True)
    m = []
    for number, picture in enumerate(seen):  # computing the kernels takes no time beside the convolutions
        kernel = graph.op("Reshape", graph.op("MatMul", graph.constant(KERNELS[number : number + 1]), packed), shape)
        offsets = [offset] if number == 1 else []  # the second product is in each of the four sums once
        m.append(graph.op("Conv", picture, kernel, *offsets, kernel_shape=[1, 3], pads=[0, 1, 0, 1]))
    p, q, r, s = add(m[1], m[2]), sub(m[1], m[2]), add(m[3], m[4]), sub(m[3], m[4])
    return [add(m[0], add(p, r)), add(q, times(s, 2)), add(p, times(r, 4)), add(m[5], add(q, times(s, 8)))]


def _moved(graph: Graph, x: str, rows: int) -> str:
    """Moved down by a row, or up where `rows` is -1; a row of zeros comes in."""
    return graph.op("Pad", x, _whole(graph, 0, 0, rows, 0, 0, 0, -rows, 0))


def _split(graph: Graph, x: str) -> Rows:
    """(B, C, 4h, W) in four."""
    end = _whole(graph, 2**31)
    return [graph.op("Slice", x, _whole(graph, n), end, _whole(graph, 2), _whole(graph, ROWS)) for n in range(ROWS)]


def _each(graph: Graph, kind: str, one: Rows, two: Rows) -> Rows:
    return [graph.op(kind, *pair) for pair in zip(one, two, strict=True)]


def _whole(graph: Graph, *numbers: int) -> str:
    """A constant of whole numbers."""
    return graph.constant(np.array(numbers, np.int64))
