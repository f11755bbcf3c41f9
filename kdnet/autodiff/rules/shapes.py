"""Ops that move elements without changing them."""

from __future__ import annotations

from math import prod

import numpy as np

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


@vjp("Identity", "Cast")
def identity_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """y = x, whatever its float type ⇒ dx = dy."""
    return (g.cast(dy, call.x.dtype),)


@vjp("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def reshape_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """The same elements ⇒ dx is dy under x's shape."""
    return [g.reshape(dy, call.x.shape)] + [None] * (len(call.op.inputs) - 1)


@vjp("Transpose")
def transpose_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Axes permuted ⇒ dx is dy under the inverse permutation."""
    perm = call.attrs.get("perm", list(range(call.x.rank))[::-1])
    return (g.transpose(dy, [int(axis) for axis in np.argsort(perm)]),)


@vjp("Expand")
def expand_vjp(_g: Emitter, _call: Call, dy: Tensor) -> Gradients:
    """Broadcast ⇒ dy, which the walk sums back."""
    return dy, None


@vjp("Concat")
def concat_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Joined ⇒ each input gets its own stretch of dy."""
    axis = int(call.attrs["axis"]) % dy.rank
    found: list[Tensor | None] = []
    start = 0
    for index, want in enumerate(call.wants):
        end = start + call.input(index).shape[axis]
        found.append(g.slice(dy, [axis], [start], [end]) if want else None)
        start = end
    return found


@vjp("Split")
def split_vjp(g: Emitter, call: Call, *dys: Tensor | None) -> Gradients:
    """Cut into pieces ⇒ the pieces joined, zeros where a piece has no gradient."""
    axis = int(call.attrs.get("axis", 0)) % call.x.rank
    pieces = [
        dy if dy is not None else g.expand(g.like(0.0, call.x), output.shape)
        for dy, output in zip(dys, call.op.outputs, strict=True)
    ]
    return [g.concat(pieces, axis)] + [None] * (len(call.op.inputs) - 1)


@vjp("Slice")
def slice_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x[a:b] ⇒ dy padded with zeros to x's shape."""
    starts, _ends, axes, steps = (call.constant(index) for index in (1, 2, 3, 4))
    if any(step != 1 for step in steps):
        call.unsupported("with a step")
    before, after = [0] * call.x.rank, [0] * call.x.rank
    for axis, start in zip(axes, starts, strict=True):
        size = call.x.shape[axis]
        first = min(max(start + size if start < 0 else start, 0), size)
        before[axis] = first
        after[axis] = size - first - dy.shape[axis]
    return g.pad(dy, before, after), None, None, None, None


@vjp("Pad")
def pad_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Constant padding ⇒ the inner part of dy."""
    if call.attrs.get("mode", "constant") != "constant":
        call.unsupported(f"with mode {call.attrs['mode']}")
    pads = call.constant(1)
    rank = call.x.rank
    axes = [axis for axis in range(rank) if pads[axis] or pads[rank + axis]]
    starts = [pads[axis] for axis in axes]
    ends = [pads[axis] + call.x.shape[axis] for axis in axes]
    return [g.slice(dy, axes, starts, ends), *[None] * (len(call.op.inputs) - 1)]


@vjp("Tile")
def tile_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Repeated ⇒ the sum over the repeats."""
    repeats = call.constant(1)
    split = [part for pair in zip(repeats, call.x.shape, strict=True) for part in pair]
    summed = g.reduce_sum(g.reshape(dy, split), range(0, 2 * call.x.rank, 2))
    return summed, None


@vjp("Gather")
def gather_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x[i] along an axis ⇒ dy added up at the rows it came from."""
    axis = int(call.attrs.get("axis", 0)) % call.x.rank
    x, indices = call.x, call.input(1)
    count = prod(indices.shape)
    outer, inner = x.shape[:axis], x.shape[axis + 1 :]
    rows = g.reshape(dy, (*outer, count, *inner))
    column = g.reshape(indices, (*[1] * axis, count, *[1] * len(inner)))
    places = g.expand(column, (*outer, count, *inner))
    zeros = g.expand(g.like(0.0, x), x.shape)
    scattered = g.op("ScatterElements", zeros, places, rows, axis=axis, reduction="add")
    return scattered, None


@vjp("GatherElements")
def gather_elements_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x at one index an element ⇒ dy added up at those places."""
    axis = int(call.attrs.get("axis", 0))
    zeros = g.expand(g.like(0.0, call.x), call.x.shape)
    places = call.input(1)
    return g.op("ScatterElements", zeros, places, dy, axis=axis, reduction="add"), None
