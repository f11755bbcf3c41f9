"""What a net costs: multiply-accumulates, operations, parameters and activations, by layer.

Counted on the ops that are emitted, so every layer has a cost without stating one:

* a multiply-accumulate (MAC) is one product and one sum inside a convolution or a matrix product
  of blobs and weights; biases are not counted among them;
* operations (FLOPs) are 2 for each MAC, plus 1 for each element that an arithmetic op makes, that
  a reduction reads, or that a pooling window covers. Moving, reshaping and comparing are free. A
  convolution with a kernel of constants, as in LRN, counts its non-zero taps here;
* parameters are the values of all weight blobs, once where they are shared;
* activation bytes are those of every tensor that an op makes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from kdnet.compile.forward import Forward
from kdnet.compile.liveness import on_data
from kdnet.graph import Op, Tensor
from kdnet.graph.serialize import needed_ops
from kdnet.net import LayerModel, NetModel

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WINDOWS = ("AveragePool", "LpPool", "MaxPool")
WHOLE_WINDOWS = ("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
# One operation an element made; an op that is in no list moves data.
ELEMENTWISE = frozenset(
    """Abs Add Atan BatchNormalization Ceil Celu Clip Cos Div Elu Erf Exp Floor Gelu HardSigmoid
    HardSwish LeakyRelu Log Max Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu Round Selu
    Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu""".split()  # noqa: SIM905  # a line for each would hide the rest
)
NORMALIZATIONS = ("LogSoftmax", "LRN", "LpNormalization", "Softmax")


class OpCost(NamedTuple):
    """What one op costs at the shapes it was emitted with."""

    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs."""

    layer: str
    type: str
    macs: int
    flops: int
    parameters: int
    activation_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a net costs, layer by layer in the net's order."""

    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Operations of one run."""
        return sum(layer.flops for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Values of all weight blobs."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of everything that is computed from the data in one run."""
        return sum(layer.activation_bytes for layer in self.layers)


def layer_of(net: NetModel, op: Op) -> LayerModel | None:
    """The layer that emitted an op: the one with the longest name among its scopes."""
    name = _owner({layer.name for layer in net.layers}, op)
    return next((layer for layer in net.layers if layer.name == name), None)


def _owner(names: Container[str], op: Op) -> str | None:
    """The longest of the names among the op's scopes."""
    scope, slash, _ = op.name.rpartition("/")
    while slash and scope not in names:
        scope, slash, _ = scope.rpartition("/")
    return scope if slash else None


def cost_of(forward: Forward, outputs: Iterable[str] | None = None) -> Cost:
    """The cost of a traced net at the batch size it was traced with.

    Args:
        forward: the traced net.
        outputs: the blobs that are wanted; by default those that no layer reads.
    """
    wanted = [forward.blobs[name] for name in outputs or forward.net.outputs]
    ops = needed_ops(forward.g.ops, wanted)
    by_layer: dict[str, list[OpCost]] = {}
    names = {layer.name for layer in forward.net.layers}
    for op in on_data(ops, fed_tensors(forward)):
        by_layer.setdefault(_owner(names, op) or "", []).append(op_cost(op))
    parameters: dict[str, int] = {}
    read = {tensor for op in ops for tensor in op.inputs}
    for tensor, blob in forward.weights.items():
        if tensor in read:
            owner = blob.layer.name
            parameters[owner] = parameters.get(owner, 0) + tensor.size
    return Cost(tuple(_layer_costs(forward.net, by_layer, parameters)))


def _layer_costs(
    net: NetModel, by_layer: dict[str, list[OpCost]], parameters: dict[str, int]
) -> list[LayerCost]:
    found = []
    for layer in net.layers:
        # Layers without weights may share a name: the first of them stands for all.
        costs = by_layer.pop(layer.name, [])
        values = parameters.pop(layer.name, 0)
        if costs or values:
            sums = [sum(column) for column in zip(*costs, strict=True)] or [0, 0, 0]
            found.append(LayerCost(layer.name, layer.type, sums[0], sums[1], values, sums[2]))
    return found


def fed_tensors(forward: Forward) -> list[Tensor]:
    """What a run is given anew: data and noise."""
    return [*forward.trace.data.values(), *(noise.tensor for noise in forward.trace.noise)]


def op_cost(op: Op) -> OpCost:
    """The cost of one op."""
    made = sum(tensor.size * tensor.dtype.itemsize for tensor in op.outputs)
    if op.type in PRODUCTS:
        return _product(op, made)
    return OpCost(0, _operations(op), made)


def _product(op: Op, made: int) -> OpCost:
    macs = _macs(op)
    constant = op.input(1).value
    if constant is not None:
        macs = macs * int(np.count_nonzero(constant)) // max(constant.size, 1)
    biases = op.output.size if len(op.inputs) > 2 and op.inputs[2] is not None else 0
    return OpCost(0 if constant is not None else macs, 2 * macs + biases, made)


def _macs(op: Op) -> int:
    first, second = op.input(0), op.input(1)
    if op.type == "Conv":
        return op.output.size * prod(second.shape[1:])
    if op.type == "ConvTranspose":
        return first.size * prod(second.shape[1:])
    if op.type == "Gemm":
        return op.output.size * first.shape[0 if op.attrs.get("transA", 0) else 1]
    return op.output.size * first.shape[-1]


def _operations(op: Op) -> int:
    if op.type in ELEMENTWISE:
        return sum(tensor.size for tensor in op.outputs)
    if op.type in WINDOWS:
        return op.output.size * int(prod(op.attrs["kernel_shape"]))
    if op.type in WHOLE_WINDOWS or op.type.startswith("Reduce") or op.type in NORMALIZATIONS:
        return op.input(0).size
    return 0
