"""Nodes that are emitted as others: with all that they leave implicit written out.

The gradient rules and both providers then see one form of each op. Ops that CUDA has no kernel
for are put together from ops that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from kdnet.errors import GraphError, fail
from kdnet.graph.emitter import Emitter
from kdnet.graph.models.node import Node
from kdnet.graph.tensor import Tensor

Rewrite = Callable[[Emitter, Node], "Tensor | tuple[Tensor, ...]"]


def _same(_g: Emitter, node: Node) -> Tensor:
    return node.input(0)


def _dropout(g: Emitter, node: Node) -> tuple[Tensor, ...]:
    """Nothing dropped: every value passes."""
    x = node.input(0)
    if len(node.outputs) < 2:
        return (x,)
    return x, g.expand(g.constant(1, bool), x.shape)


def _batch_normalization(g: Emitter, node: Node) -> Tensor:
    """By the statistics that the model holds."""
    epsilon = node.attrs.get("epsilon", 1e-5)
    return g.op("BatchNormalization", *node.inputs[:5], epsilon=epsilon)


def _cast(g: Emitter, node: Node) -> Tensor:
    if node.op_type == "CastLike":
        return g.cast(node.input(0), node.input(1).dtype)
    return g.cast(node.input(0), tensor_dtype_to_np_dtype(node.attrs["to"]))


def _celu(g: Emitter, node: Node) -> Tensor:
    alpha = float(node.attrs.get("alpha", 1.0))
    return g.mul(g.op("Elu", g.mul(node.input(0), 1 / alpha), alpha=1.0), alpha)


def _mean(g: Emitter, node: Node) -> Tensor:
    return g.mul(g.op("Sum", *node.inputs), 1 / len(node.inputs))


def _reshape(g: Emitter, node: Node) -> Tensor:
    """To the sizes that 0 and −1 stand for, item by item where the model has one item."""
    x, shape = node.input(0), node.ints(1)
    if node.batch and shape[:1] == [1] and x.shape[:1] == (node.batch,):
        shape[0] = node.batch
    if not node.attrs.get("allowzero", 0):
        fits = all(size or axis < x.rank for axis, size in enumerate(shape))
        shape = [size or x.shape[axis] for axis, size in enumerate(shape)] if fits else shape
    rest = prod(size for size in shape if size != -1)
    if -1 in shape and rest:
        shape[shape.index(-1)] = x.size // rest
    if prod(shape) != x.size or min(shape, default=0) < 0:
        fail(GraphError, "op-misuse", f"{node}: shape {x.shape} to {tuple(node.ints(1))}")
    return g.reshape(x, shape)


def _expand(g: Emitter, node: Node) -> Tensor:
    x, shape = node.input(0), tuple(node.ints(1))
    try:
        return g.expand(x, np.broadcast_shapes(x.shape, shape))
    except ValueError:
        fail(GraphError, "op-misuse", f"{node}: shape {x.shape} to {shape}")


def _slice(g: Emitter, node: Node) -> Tensor:
    """With its axes and steps; steps that are left out are misread by some optimisers."""
    starts, ends = node.ints(1), node.ints(2)
    axes = node.ints(3, list(range(len(starts))))
    return g.slice(node.input(0), axes, starts, ends, node.ints(4, [1] * len(starts)))


def _pad(g: Emitter, node: Node) -> Tensor:
    """With the pads of every axis."""
    x, given = node.input(0), node.ints(1)
    axes = [axis % x.rank for axis in node.ints(3, list(range(x.rank)))]
    if len(given) != 2 * len(axes):
        fail(GraphError, "op-misuse", f"{node}: {len(given)} pads for {len(axes)} axes")
    pads = [0] * (2 * x.rank)
    for place, axis in enumerate(axes):
        pads[axis], pads[x.rank + axis] = given[place], given[len(axes) + place]
    if not any(pads):
        return x
    value = node.optional(2) or g.like(0.0, x)
    return g.op("Pad", x, g.ints(*pads), value, mode=node.attrs.get("mode", "constant"))


def _reduction(g: Emitter, node: Node) -> Tensor:
    """With its axes; an empty list of them means all, or none where the model says so."""
    x = node.input(0)
    axes = node.ints(1, [])
    keepdims = int(node.attrs.get("keepdims", 1))
    if not axes and node.attrs.get("noop_with_empty_axes", 0):
        return x
    return g.op(node.op_type, x, g.ints(*(axes or range(x.rank))), keepdims=keepdims)


def _group_normalization(g: Emitter, node: Node) -> Tensor:
    """As one normalisation of each group; the op itself is no kernel but a function."""
    x, groups = node.input(0), int(node.attrs["num_groups"])
    rows = g.reshape(x, (x.shape[0], groups, x.size // (x.shape[0] * groups)))
    ones, zeros = g.constant(np.ones(groups)), g.constant(np.zeros(groups))
    epsilon = node.attrs.get("epsilon", 1e-5)
    even = g.op("InstanceNormalization", rows, ones, zeros, epsilon=epsilon)
    wide = (x.shape[1], *[1] * (x.rank - 2))
    scaled = g.mul(g.reshape(even, x.shape), g.reshape(node.input(1), wide))
    return g.add(scaled, g.reshape(node.input(2), wide))


def _windows(g: Emitter, node: Node) -> tuple[Tensor, ...]:
    """With its padding as numbers."""
    attrs = dict(node.attrs)
    how = attrs.pop("auto_pad", "NOTSET")
    if how != "NOTSET":
        attrs["pads"] = _padding(node, how)
    return g.multi(node.op_type, *node.inputs, count=len(node.outputs), **attrs)


def _kernel(node: Node) -> list[int]:
    if "kernel_shape" in node.attrs:
        return list(node.attrs["kernel_shape"])
    return list(node.input(1).shape[2:])


def _geometry(node: Node) -> tuple[list[int], list[int]]:
    """Strides, and how far each window reaches."""
    kernel = _kernel(node)
    strides = list(node.attrs.get("strides") or [1] * len(kernel))
    dilations = list(node.attrs.get("dilations") or [1] * len(kernel))
    return strides, [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]


def _halves(totals: list[int], how: str) -> list[int]:
    """Each total split in two, the odd one at the end (SAME_UPPER) or at the beginning."""
    small, large = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return [*small, *large] if how == "SAME_UPPER" else [*large, *small]


def _padding(node: Node, how: str) -> list[int]:
    strides, spans = _geometry(node)
    if how == "VALID":
        return [0] * (2 * len(spans))
    sizes = node.input(0).shape[2:]
    each = zip(sizes, strides, spans, strict=True)
    return _halves([max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in each], how)


def _conv_transpose(g: Emitter, node: Node) -> Tensor:
    """With equal pads, the only ones CUDA has; what others cut off is cut off afterwards."""
    attrs = dict(node.attrs)
    pads, extra = _transposed_padding(node)
    for name in ("auto_pad", "output_shape", "pads", "output_padding", "kernel_shape"):
        attrs.pop(name, None)
    axes = len(pads) // 2
    if any(extra):
        attrs["output_padding"] = extra
    if pads[:axes] == pads[axes:]:
        return g.op("ConvTranspose", *node.inputs, pads=pads, **attrs)
    whole = g.op("ConvTranspose", *node.inputs, **attrs)
    cut = [axis for axis in range(axes) if pads[axis] or pads[axes + axis]]
    ends = [whole.shape[axis + 2] - pads[axes + axis] for axis in cut]
    return g.slice(whole, [axis + 2 for axis in cut], [pads[axis] for axis in cut], ends)


def _transposed_padding(node: Node) -> tuple[list[int], list[int]]:
    """Pads, and extra places at the end."""
    strides, spans = _geometry(node)
    extra = list(node.attrs.get("output_padding") or [0] * len(spans))
    how = node.attrs.get("auto_pad", "NOTSET")
    sizes = node.input(0).shape[2:]
    if "output_shape" in node.attrs:
        wanted = list(node.attrs["output_shape"])[-len(spans) :]
    elif how.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    else:
        none = [0] * (2 * len(spans))
        return (none if how == "VALID" else list(node.attrs.get("pads") or none)), extra
    each = zip(sizes, strides, spans, extra, wanted, strict=True)
    totals = [(n - 1) * s + k + more - out for n, s, k, more, out in each]
    extra = [more + max(0, -total) for more, total in zip(extra, totals, strict=True)]
    return _halves([max(0, total) for total in totals], how), extra


def _random(_g: Emitter, node: Node) -> Tensor:
    node.unsupported("its numbers would differ from run to run")


def _flow(_g: Emitter, node: Node) -> Tensor:
    node.unsupported("loops are not supported")


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RANDOM = ("Normal", "NormalLike", "Uniform", "UniformLike")
REWRITES: Mapping[str, Rewrite] = {
    "AveragePool": _windows,
    "BatchNormalization": _batch_normalization,
    "Bernoulli": _random,
    "Cast": _cast,
    "CastLike": _cast,
    "Celu": _celu,
    "Conv": _windows,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Expand": _expand,
    "GroupNormalization": _group_normalization,
    "Identity": _same,
    "Loop": _flow,
    "LpPool": _windows,
    "MaxPool": _windows,
    "Mean": _mean,
    "Multinomial": _random,
    "Pad": _pad,
    "Reshape": _reshape,
    "Scan": _flow,
    "Slice": _slice,
    **{f"Random{name}": _random for name in RANDOM},
    **{f"Reduce{name}": _reduction for name in REDUCTIONS},
}


def emitted(g: Emitter, node: Node) -> tuple[Tensor, ...]:
    """The node's outputs."""
    rewrite = REWRITES.get(node.op_type)
    if rewrite is None:
        attrs: dict[str, Any] = dict(node.attrs)
        return g.multi(node.op_type, *node.inputs, count=len(node.outputs), **attrs)
    found = rewrite(g, node)
    return found if isinstance(found, tuple) else (found,)
