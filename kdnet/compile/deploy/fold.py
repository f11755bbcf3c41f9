"""What a trained net no longer needs: copies, arithmetic on constants, BatchNorm after a product.

    y = s · (W·x + b) + t   =   (s · W)·x + (s · b + t)

Everything is computed in float64; arrays become float32 when the model is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from kdnet.graph import OPSET, Op, Tensor
from kdnet.graph.serialize import make_node, needed_ops

Array = NDArray[Any]
HOSTS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization")
CHANNELS = 1


@dataclass(frozen=True)
class Folded:
    """A graph after folding: its ops and its output."""

    ops: tuple[Op, ...]
    output: Tensor


class Affine(NamedTuple):
    """One channel's ``scale · y + shift``, for all channels of y."""

    scale: Array
    shift: Array


def fold(ops: Sequence[Op], output: Tensor, values: Mapping[Tensor, Array]) -> Folded:
    """The same function of the fed blobs in fewer ops.

    Args:
        ops: in an order in which each op follows those it reads.
        output: the tensor that is wanted.
        values: every weight's array.
    """
    known = {tensor: _constant(tensor, array) for tensor, array in values.items()}
    ops, output = _without_constants(ops, output, known)
    ops = _without_affine(ops, output)
    return Folded(tuple(needed_ops(ops, [output])), output)


def _constant(tensor: Tensor, array: Array) -> Tensor:
    return replace(tensor, value=array.reshape(tensor.shape))


def _without_constants(
    ops: Sequence[Op], output: Tensor, known: dict[Tensor, Tensor]
) -> tuple[list[Op], Tensor]:
    """Ops of constants computed now, and Identity ops bridged.

    ``known`` maps a tensor to the one that takes its place.
    """
    kept = []
    for op in ops:
        inputs = tuple(known.get(t, t) if t is not None else None for t in op.inputs)
        if op.type == "Identity":
            known[op.output] = op.input(0) if inputs[0] is None else inputs[0]
        elif op.inputs and all(t is None or t.value is not None for t in inputs):
            for tensor, array in zip(op.outputs, _computed(op, inputs), strict=True):
                known[tensor] = _constant(tensor, array)
        else:
            kept.append(replace(op, inputs=inputs))
    return kept, known.get(output, output)


def _computed(op: Op, inputs: Sequence[Tensor | None]) -> list[Array]:
    """An op's outputs, floats in float64."""
    names = [f"i{index}" if tensor is not None else "" for index, tensor in enumerate(inputs)]
    outputs = [f"o{index}" for index in range(len(op.outputs))]
    node = make_node(op.type, op.name, names, outputs, op.attrs)
    feeds = {
        name: _wide(tensor.value)
        for name, tensor in zip(names, inputs, strict=True)
        if tensor is not None and tensor.value is not None
    }
    # A statistic that nothing was added to yet is divided by zero here, and passed over after.
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(node, opsets={"": OPSET}).run(None, feeds)
    return [np.asarray(array) for array in found]


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def _without_affine(ops: Sequence[Op], output: Tensor) -> list[Op]:
    """Affine maps of channels folded into the product that they follow."""
    reads = Counter(t for op in ops for t in op.inputs if t is not None)
    reads[output] += 1
    makers: dict[Tensor, int] = {}
    kept: list[Op | None] = []
    for op in ops:
        found = _foldable(op, makers, kept, reads)
        if found is not None:
            place, folded = found
            kept[place] = None
            op = folded  # noqa: PLW2901  # the folded op stands where the affine map stood
        makers[op.output] = len(kept)
        kept.append(op)
    return [op for op in kept if op is not None]


def _foldable(
    op: Op, makers: Mapping[Tensor, int], kept: Sequence[Op | None], reads: Counter[Tensor]
) -> tuple[int, Op] | None:
    """The place of the product that takes ``op`` in, and the two as one op."""
    for tensor in op.inputs[:2]:
        host = kept[makers[tensor]] if tensor is not None and tensor in makers else None
        if tensor is None or host is None or host.type not in HOSTS:
            continue
        if reads[tensor] != 1 or tensor.shape != op.output.shape:
            continue
        affine = _affine_of(op, tensor)
        folded = _fold_into(host, affine, op) if affine is not None else None
        if folded is not None:
            return makers[tensor], folded
    return None


def _affine_of(op: Op, x: Tensor) -> Affine | None:
    """What the op does to each channel of ``x``, or None if it does something else."""
    if x.rank <= CHANNELS:
        return None
    channels = x.shape[CHANNELS]
    if op.type == "BatchNormalization" and op.inputs[0] is x:
        return _normalization(op)
    if op.type not in ("Add", "Sub", "Mul", "Div"):
        return None
    first = op.inputs[0] is x
    other = _by_channel(op.input(1 if first else 0), x.rank, channels)
    if other is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    found = {
        "Add": Affine(one, other),
        "Sub": Affine(one, -other) if first else Affine(-one, other),
        "Mul": Affine(other, zero),
    }
    if op.type == "Div":
        return Affine(1 / other, zero) if first and other.all() else None
    return found[op.type]


def _by_channel(tensor: Tensor, rank: int, channels: int) -> Array | None:
    """A constant operand as one value a channel; None where it varies along another axis."""
    if tensor.value is None:
        return None
    shape = (1,) * (rank - tensor.rank) + tensor.shape
    others = shape[:CHANNELS] + shape[CHANNELS + 1 :]
    if any(extent != 1 for extent in others) or shape[CHANNELS] not in (1, channels):
        return None
    return np.broadcast_to(_wide(tensor.value).reshape(-1), (channels,))


def _normalization(op: Op) -> Affine | None:
    values = [tensor.value if tensor is not None else None for tensor in op.inputs[1:5]]
    if any(value is None for value in values) or op.attrs.get("training_mode", 0):
        return None
    scale, shift, mean, variance = (_wide(value) for value in values if value is not None)
    factor = scale / np.sqrt(variance + op.attrs["epsilon"])
    return Affine(factor, shift - mean * factor)


def _fold_into(host: Op, affine: Affine, op: Op) -> Op | None:
    """``host`` with the affine map inside, making what ``op`` made."""
    folded = _folded_inputs(host, affine)
    if folded is None:
        return None
    tensors = list(host.inputs)
    for place, array in folded.items():
        tensors += [None] * (place + 1 - len(tensors))
        tensors[place] = _named(host, tensors[place], place, array)
    return replace(host, inputs=tuple(tensors), outputs=op.outputs)


def _named(host: Op, old: Tensor | None, place: int, array: Array) -> Tensor:
    """A folded array under a name of the host's own, since the old one may be shared."""
    kind = {1: "weight", 2: "bias"}[place]
    name = f"{host.name}/{kind}"
    return Tensor(name, old.dtype if old is not None else np.dtype(np.float32), array.shape, array)


def _folded_inputs(host: Op, affine: Affine) -> dict[int, Array] | None:
    """The host's new weight and bias by input place."""
    given = [tensor.value if tensor is not None else None for tensor in host.inputs[1:3]]
    if given[0] is None or (len(host.inputs) > 2 and given[1] is None):
        return None
    weight = _wide(given[0])
    channels = len(affine.scale)
    bias = np.zeros(channels) if len(given) < 2 or given[1] is None else _wide(given[1])
    if host.attrs.get("alpha", 1.0) != 1 or host.attrs.get("beta", 1.0) != 1:
        return None
    if bias.size not in (1, channels) or affine.scale.shape != (channels,):
        return None
    bias = np.broadcast_to(bias.reshape(-1), (channels,))
    return {1: _scaled(host, weight, affine.scale), 2: bias * affine.scale + affine.shift}


def _scaled(host: Op, weight: Array, scale: Array) -> Array:
    """The host's weight with each output channel multiplied."""
    if host.type == "Conv":
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if host.type == "Gemm":
        return weight * (scale[:, None] if host.attrs.get("transB", 0) else scale)
    if host.type == "BatchNormalization":
        return weight * scale
    group = host.attrs.get("group", 1)
    rows: Array = np.repeat(scale.reshape(group, -1), len(weight) // group, axis=0)
    return weight * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
