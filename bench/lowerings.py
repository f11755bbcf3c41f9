"""Exact lowerings of a convolution's two gradients to ONNX ops, for measuring.

Every recipe takes a :class:`ConvShape` and a :class:`Builder` and returns the name of its result,
or ``None`` where it does not apply. Inputs are the tensors ``x``, ``w`` and ``dy`` of

    y[n, o, p, q] = Σ_{c,i,j} x[n, c, s·p + i - pad, s·q + j - pad] · w[o, c, i, j]

square, ungrouped, undilated: what the measured shapes need. The general forms are in the
docstrings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
BLOCKED = "com.microsoft.nchwc"
FIRST_TO_LAST = np.iinfo(np.int64).min


@dataclass(frozen=True)
class ConvShape:
    """A square convolution: batch, channels, height, outputs, kernel, stride, pad."""

    n: int
    c: int
    h: int
    o: int
    k: int
    s: int
    p: int

    @property
    def out(self) -> int:
        """Height of the output."""
        return (self.h + 2 * self.p - self.k) // self.s + 1

    @property
    def unread(self) -> int:
        """Rows at the lower border that no window reaches."""
        return (self.h + 2 * self.p - self.k) % self.s

    @property
    def flops(self) -> int:
        """Multiplications and additions of the forward pass; each gradient has as many."""
        return 2 * self.n * self.o * self.c * self.k**2 * self.out**2

    def dims(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors a recipe may read."""
        return {
            "x": (self.n, self.c, self.h, self.h),
            "w": (self.o, self.c, self.k, self.k),
            "dy": (self.n, self.o, self.out, self.out),
        }

    def __str__(self) -> str:
        return f"{self.n},{self.c},{self.h},{self.o},{self.k},{self.s},{self.p}"


class Builder:
    """Collects nodes and constants of one small graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One node with one output."""
        out = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape to constant dimensions."""
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        """Permute the axes."""
        return self.op("Transpose", x, perm=list(perm))

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """One axis, ``start`` to ``end`` by ``step``."""
        return self.op(
            "Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step)
        )

    def model(self, inputs: dict[str, tuple[int, ...]], output: str) -> bytes:
        """The serialised graph."""
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "lowering",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
                for name, dims in inputs.items()
                if name in used
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        opsets = [("", 20), (MICROSOFT, 1), (BLOCKED, 1)]
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets])
        model.ir_version = 10
        return model.SerializeToString()


Recipe = Callable[[ConvShape, Builder], str | None]


def swapped_axes(z: ConvShape, b: Builder) -> str:
    """Weight gradient as a Conv of transposed tensors: image xᵀ (C,N,H,W), filter dyᵀ (O,N,OH,OW).

    Dilation and stride change places. The result (C,O,K,K) is transposed.
    """
    end = z.p - min(z.p, z.unread)
    y = b.op(
        "Conv",
        b.transpose("x", 1, 0, 2, 3),
        b.transpose("dy", 1, 0, 2, 3),
        dilations=[z.s, z.s],
        pads=[z.p, z.p, end, end],
    )
    for axis in (2, 3):
        y = b.slice(y, axis, 0, z.k)
    return b.transpose(y, 1, 0, 2, 3)


def channels_last(z: ConvShape, b: Builder) -> str:
    """Weight gradient as ONE Conv over the channels-last image, flattened to (1,N,H,W·C).

    A step of one pixel is a step of C along the last axis, so the filter dyᵀ (O,N,OH,OW) is
    dilated by [s, s·C] and the pads are [p, p·C, p, p·C]. The output (1,O,K,K·C) holds every
    tap; its rows are runs of K·C floats, which makes the kernel's own im2col a plain copy, and
    its one matrix product has N·OH·OW terms to sum.

    The rows that no window reaches (stride) are taken from the end pad, else cut off after.
    With groups: image (1, G·N, H, W·C/G) and group=G. Dilated forward: strides=[d, 1] for the
    rows; for the columns only the form with five axes does it, (1,N,H,W,C) with filter
    (O,N,OH,OW,1), dilations [s,s,1], strides [d,d,1].
    """
    cut = min(z.p, z.unread)
    end = z.p - cut
    taps = z.k + z.unread - cut
    image = b.reshape(b.transpose("x", 0, 2, 3, 1), 1, z.n, z.h, z.h * z.c)
    y = b.op(
        "Conv",
        image,
        b.transpose("dy", 1, 0, 2, 3),
        dilations=[z.s, z.s * z.c],
        pads=[z.p, z.p * z.c, end, end * z.c],
    )
    y = b.reshape(y, z.o, taps, taps, z.c)
    if taps != z.k:
        for axis in (1, 2):
            y = b.slice(y, axis, 0, z.k)
    return b.transpose(y, 0, 3, 1, 2)


def channels_last_in_parts(z: ConvShape, b: Builder) -> str | None:
    """The same with the batch in four parts, group=4, and their sum.

    Each part is a product of its own for the threads to share, over a fourth of the terms.
    """
    parts = 4
    cut = min(z.p, z.unread)
    if z.n % parts or z.unread > cut:
        return None
    end = z.p - cut
    image = b.reshape(b.transpose("x", 0, 2, 3, 1), 1, z.n, z.h, z.h * z.c)
    items = b.reshape("dy", parts, z.n // parts, z.o, z.out * z.out)
    filters = b.reshape(b.transpose(items, 0, 2, 1, 3), parts * z.o, z.n // parts, z.out, z.out)
    y = b.op(
        "Conv",
        image,
        filters,
        dilations=[z.s, z.s * z.c],
        pads=[z.p, z.p * z.c, end, end * z.c],
        group=parts,
    )
    y = b.op("ReduceSum", b.reshape(y, parts, z.o, z.k, z.k, z.c), b.ints(0), keepdims=0)
    return b.transpose(y, 0, 3, 1, 2)


def channels_last_of_dy(z: ConvShape, b: Builder) -> str | None:
    """Stride 1, image and filter in each other's place: the image is dy, padded by K-1-p.

    The taps come out reversed. C rows of filters instead of O: better where C is the larger.
    """
    if z.s != 1:
        return None
    pad = z.k - 1 - z.p
    image = b.reshape(b.transpose("dy", 0, 2, 3, 1), 1, z.n, z.out, z.out * z.o)
    y = b.op(
        "Conv",
        image,
        b.transpose("x", 1, 0, 2, 3),
        dilations=[1, z.o],
        pads=[pad, pad * z.o, pad, pad * z.o],
    )
    y = b.reshape(y, z.c, z.k, z.k, z.o)
    for axis in (1, 2):
        y = b.slice(y, axis, -1, FIRST_TO_LAST, -1)
    return b.transpose(y, 3, 0, 1, 2)


def slices(z: ConvShape, b: Builder) -> str:
    """Weight gradient over explicit columns: K slices along W, K along H, one batched product."""
    x = b.op("Pad", "x", b.ints(0, 0, z.p, z.p, 0, 0, z.p, z.p)) if z.p else "x"
    reach = z.s * (z.out - 1) + 1
    for axis in (3, 2):
        x = b.op("Concat", *[b.slice(x, axis, i, i + reach, z.s) for i in range(z.k)], axis=1)
    columns = b.reshape(x, z.n, z.k * z.k * z.c, z.out * z.out)
    dy = b.reshape("dy", z.n, z.o, z.out * z.out)
    per_item = b.op("MatMul", dy, b.transpose(columns, 0, 2, 1))
    total = b.op("ReduceSum", per_item, b.ints(0), keepdims=0)
    return b.transpose(b.reshape(total, z.o, z.k, z.k, z.c), 0, 3, 1, 2)


def pointwise(z: ConvShape, b: Builder) -> str | None:
    """Weight gradient of a 1x1 convolution: dy·xᵀ per item, summed over the batch."""
    if z.k != 1 or z.p:
        return None
    x = "x"
    if z.s > 1:
        for axis in (2, 3):
            x = b.slice(x, axis, 0, z.h, z.s)
    columns = b.reshape(x, z.n, z.c, z.out * z.out)
    dy = b.reshape("dy", z.n, z.o, z.out * z.out)
    per_item = b.op("MatMul", dy, b.transpose(columns, 0, 2, 1))
    return b.reshape(b.op("ReduceSum", per_item, b.ints(0), keepdims=0), z.o, z.c, 1, 1)


def conv_transpose(z: ConvShape, b: Builder) -> str:
    """Input gradient as ConvTranspose(dy, w)."""
    return b.op(
        "ConvTranspose",
        "dy",
        "w",
        strides=[z.s, z.s],
        pads=[z.p] * 4,
        output_padding=[z.unread, z.unread],
    )


def _flipped(z: ConvShape, b: Builder) -> str:
    w = "w"
    if z.k > 1:
        for axis in (2, 3):
            w = b.slice(w, axis, -1, FIRST_TO_LAST, -1)
    return b.transpose(w, 1, 0, 2, 3)


def flipped_conv(z: ConvShape, b: Builder) -> str | None:
    """Input gradient at stride 1 as Conv(dy, w turned by 180° and transposed), pad K-1-p."""
    if z.s != 1:
        return None
    return b.op("Conv", "dy", _flipped(z, b), pads=[z.k - 1 - z.p] * 4)


def forward_conv(z: ConvShape, b: Builder) -> str:
    """Forward pass with the weight as an input."""
    return b.op("Conv", "x", "w", strides=[z.s, z.s], pads=[z.p] * 4)


def _blocked(b: Builder, x: str, w: str, dims: tuple[int, int, int], **attributes: object) -> str:
    """Conv in the runtime's blocked layout with the weight blocked inside the graph.

    ``w`` (O,C,K,K) becomes [O/B][C/B][K·K][B of C][B of O]; ``dims`` = (O, C, K), multiples of B
    after padding. Images of fewer than B channels stay as they are, filters then [O/B][C·K·K][B].
    """
    o, c, k = dims
    block = BLOCK
    o_padded = -(-o // block) * block
    c_padded = -(-c // block) * block if c >= block else c
    if (o_padded, c_padded) != (o, c):
        w = b.op("Pad", w, b.ints(0, 0, 0, 0, o_padded - o, c_padded - c, 0, 0))
    if c >= block:
        x = b.op("ReorderInput", x, domain=BLOCKED)
        w = b.reshape(w, o_padded // block, block, c_padded // block, block, k * k)
        w = b.transpose(w, 0, 2, 4, 3, 1)
    else:
        w = b.transpose(b.reshape(w, o_padded // block, block, c * k * k), 0, 2, 1)
    w = b.reshape(w, o_padded, c_padded, k, k)
    y = b.op("Conv", x, w, domain=BLOCKED, kernel_shape=[k, k], group=1, **attributes)
    return b.op("ReorderOutput", y, domain=BLOCKED, channels=o)


def forward_blocked(z: ConvShape, b: Builder) -> str | None:
    """Forward pass by the blocked kernel; not a standard op, so never in a written file."""
    if z.c >= BLOCK and z.c % 4:
        return None
    return _blocked(b, "x", "w", (z.o, z.c, z.k), strides=[z.s, z.s], pads=[z.p] * 4)


def blocked_conv(z: ConvShape, b: Builder) -> str | None:
    """Input gradient at stride 1 by the blocked kernel; not a standard op."""
    if z.s != 1 or (z.o >= BLOCK and z.o % 4):
        return None
    pad = z.k - 1 - z.p
    return _blocked(b, "dy", _flipped(z, b), (z.c, z.o, z.k), strides=[1, 1], pads=[pad] * 4)


def _block_size() -> int:
    """Channels in one block of the runtime's blocked layout: 16 with AVX-512, else 8."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return 16 if "avx512f" in file.read() else 8
    except OSError:
        return 8


BLOCK = _block_size()

WEIGHT: dict[str, Recipe] = {
    "swapped axes": swapped_axes,
    "channels last": channels_last,
    "in 4 parts": channels_last_in_parts,
    "of dy": channels_last_of_dy,
    "slices": slices,
    "pointwise": pointwise,
}
INPUT: dict[str, Recipe] = {
    "ConvTranspose": conv_transpose,
    "flipped Conv": flipped_conv,
    "blocked": blocked_conv,
}
FORWARD: dict[str, Recipe] = {"Conv": forward_conv, "blocked": forward_blocked}
