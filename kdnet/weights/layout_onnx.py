"""How the arrays that an ONNX model's nodes read become Caffe's blobs: one named rule an op.

Where names alone say what an array is, a node says it better: whether a matrix is transposed,
which vectors belong to a normalisation, and what the layer is called.

Source: the ONNX operators' definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdnet.weights.layout import GATES_IOFG, Arrays, Made, Shapes, batch_norm, lstm, only
from kdnet.weights.lazy_numpy import np

Layers = tuple[Made, ...]


@dataclass(frozen=True)
class Node:
    """An op of a model: what it reads and makes, and its attributes that are numbers."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        """An attribute, or its default."""
        return self.numbers.get(name, default)

    @property
    def layer(self) -> str:
        """The layer that it stands for: "conv1" for "/conv1/Conv", as PyTorch names nodes."""
        return self.name.strip("/").removesuffix(f"/{self.op}")


@dataclass(frozen=True)
class NodeRule:
    """One op.

    ``leaves`` are what its inputs are, by place, "" for those that are no weights; the first
    weight must be there. ``may_add`` says whether an Add behind the op may be its bias.
    """

    name: str
    leaves: tuple[str, ...]
    fits: Callable[[Node, Shapes], bool]
    make: Callable[[Node, Arrays], Layers]
    may_add: bool = False


def _vectors(shapes: Shapes) -> bool:
    sizes = set(shapes.values())
    return len(sizes) == 1 and len(next(iter(sizes))) == 1


def _matrix_fits(node: Node, shapes: Shapes) -> bool:
    weight = shapes["weight"]
    if len(weight) != 2 or node.number("alpha", 1) != 1 or node.number("beta", 1) != 1:
        return False
    outputs = weight[0] if node.number("transB", 0) else weight[1]
    return shapes.get("bias", (outputs,)) in ((outputs,), (1, outputs))


def _matrix(node: Node, arrays: Arrays) -> Layers:
    """(I, O) -> (O, I) unless the node transposes it itself; a bias of one row becomes a row."""
    weight = arrays["weight"] if node.number("transB", 0) else arrays["weight"].T
    moved = {leaf: array.reshape(-1) for leaf, array in arrays.items() if leaf == "bias"}
    return only("InnerProduct", "weight", "bias")(
        {"weight": np.ascontiguousarray(weight), **moved}
    )


def _kernel_fits(_: Node, shapes: Shapes) -> bool:
    return len(shapes["weight"]) >= 3


def _kernel(kind: str) -> Callable[[Node, Arrays], Layers]:
    """OIHW as it is, and IOHW of a transposed convolution; an added bias loses its ones."""

    def make(_: Node, arrays: Arrays) -> Layers:
        moved = {leaf: array.reshape(-1) for leaf, array in arrays.items() if leaf == "bias"}
        return only(kind, "weight", "bias")({**arrays, **moved})

    return make


def _slope_fits(_: Node, shapes: Shapes) -> bool:
    """One slope a channel, or one for all: C, C11 or 1C11 with ones behind the channels."""
    slope = shapes["slope"]
    return sum(size != 1 for size in slope) <= 1 and (len(slope) <= 1 or slope[-1] == 1)


def _slope(_: Node, arrays: Arrays) -> Layers:
    return (Made("", "PReLU", (arrays["slope"].reshape(-1),), ("slope",)),)


def _norm(_: Node, arrays: Arrays) -> Layers:
    return batch_norm("mean", "variance", "scale", "bias")(arrays)


def _lstm_fits(_: Node, shapes: Shapes) -> bool:
    rows, recurrent = shapes["weight"], shapes["recurrence"]
    return (
        len(rows) == len(recurrent) == 3
        and rows[0] == recurrent[0] == 1
        and rows[1] == recurrent[1] == 4 * recurrent[2]
        and shapes.get("bias", (1, 2 * rows[1])) == (1, 2 * rows[1])
    )


def _lstm(_: Node, arrays: Arrays) -> Layers:
    """One direction's rows in Caffe's order of gates, and the sum of its two biases."""
    rows, recurrent = arrays["weight"][0], arrays["recurrence"][0]
    bias = np.zeros(rows.shape[0], rows.dtype)
    if "bias" in arrays:
        bias = arrays["bias"].reshape(2, -1).sum(axis=0, dtype=rows.dtype)
    blobs = lstm(rows, recurrent, bias, GATES_IOFG)
    source = "bias" if "bias" in arrays else ""
    return (Made("", "LSTM", blobs, ("weight", source, "recurrence")),)


NODE_RULES = {
    "BatchNormalization": NodeRule(
        "onnx/batch-norm",
        ("", "scale", "bias", "mean", "variance"),
        lambda _, shapes: len(shapes) == 4 and _vectors(shapes),
        _norm,
    ),
    "Conv": NodeRule(
        "onnx/convolution",
        ("", "weight", "bias"),
        _kernel_fits,
        _kernel("Convolution"),
        may_add=True,
    ),
    "ConvTranspose": NodeRule(
        "onnx/deconvolution", ("", "weight", "bias"), _kernel_fits, _kernel("Deconvolution")
    ),
    "Gemm": NodeRule("onnx/gemm", ("", "weight", "bias"), _matrix_fits, _matrix),
    "LSTM": NodeRule("onnx/lstm", ("", "weight", "recurrence", "bias"), _lstm_fits, _lstm),
    "MatMul": NodeRule("onnx/matmul", ("", "weight"), _matrix_fits, _matrix, may_add=True),
    "PRelu": NodeRule("onnx/prelu", ("", "slope"), _slope_fits, _slope),
}


def is_added_bias(node: Node, weight: tuple[int, ...], added: tuple[int, ...]) -> bool:
    """Whether an array, added to what ``node`` makes, is a number for each of its outputs.

    A convolution's channels stand before as many axes as its kernel has, a matrix's outputs last.
    """
    axis, outputs = (len(weight) - 1, weight[0]) if node.op == "Conv" else (1, weight[-1])
    others = [size for place, size in enumerate(added) if place != len(added) - axis]
    return len(added) >= axis and added[-axis] == outputs and all(size == 1 for size in others)
