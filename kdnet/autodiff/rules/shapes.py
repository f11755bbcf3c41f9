"""Ops that move elements without changing them."""

from __future__ import annotations

import numpy as np

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.autodiff.windows import moved
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
    sizes = [call.input(index).shape[axis] for index in range(len(call.wants))]
    if len(sizes) > 1 and all(call.wants):
        return g.multi("Split", dy, g.ints(*sizes), count=len(sizes), axis=axis)
    found: list[Tensor | None] = []
    start = 0
    for size, want in zip(sizes, call.wants, strict=True):
        end = start + size
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
    """x[a:b:s] ⇒ dy at the places it came from, zeros elsewhere."""
    starts, _ends, axes, steps = (call.constant(index) for index in (1, 2, 3, 4))
    before, after = [0] * call.x.rank, [0] * call.x.rank
    backwards = [axis for axis, step in zip(axes, steps, strict=True) if step < 0]
    dy = _reversed(g, dy, backwards)
    for axis, start, step in zip((a % call.x.rank for a in axes), starts, steps, strict=True):
        size, count = call.x.shape[axis], dy.shape[axis]
        first = min(max(start + size if start < 0 else start, 0), size - (step < 0))
        if step < 0:
            first += (count - 1) * step
        dy = _apart(g, dy, axis, abs(step))
        before[axis] = first
        after[axis] = size - first - dy.shape[axis]
    return g.pad(dy, before, after), None, None, None, None


def _reversed(g: Emitter, x: Tensor, axes: list[int]) -> Tensor:
    if not axes:
        return x
    ends = [-x.shape[axis] - 1 for axis in axes]
    back = [-1] * len(axes)
    return g.slice(x, axes, back, ends, back)


def _apart(g: Emitter, x: Tensor, axis: int, step: int) -> Tensor:
    """The elements along an axis with ``step − 1`` zeros between them."""
    outer, count, inner = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    if step == 1 or count < 2:
        return x
    zeros = [0] * (axis + 1)
    gap = [*zeros, step - 1, *[0] * len(inner)]
    wide = g.pad(g.reshape(x, (*outer, count, 1, *inner)), [0] * len(gap), gap)
    whole = g.reshape(wide, (*outer, count * step, *inner))
    return g.slice(whole, [axis], [0], [(count - 1) * step + 1])


@vjp("Pad")
def pad_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Padding ⇒ the inner part of dy, and what was copied to the border back to its place."""
    mode = call.attrs.get("mode", "constant")
    pads, rank = call.constant(1), call.x.rank
    if len(pads) != 2 * rank:
        call.unsupported("with axes: give the pads of every axis")
    if min(pads) < 0:
        call.unsupported("that cuts")
    if mode == "constant":
        axes = [axis for axis in range(rank) if pads[axis] or pads[rank + axis]]
        starts = [pads[axis] for axis in axes]
        ends = [pads[axis] + call.x.shape[axis] for axis in axes]
        inner = g.slice(dy, axes, starts, ends) if axes else dy
        return [inner, *[None] * (len(call.op.inputs) - 1)]
    for axis in range(rank):
        dy = _folded(g, dy, axis, (pads[axis], pads[rank + axis]), mode)
    return [dy, *[None] * (len(call.op.inputs) - 1)]


def _folded(g: Emitter, dy: Tensor, axis: int, pads: tuple[int, int], mode: str) -> Tensor:
    """One padded axis cut, with its borders added where mode took them from."""
    before, after = pads
    if not before and not after:
        return dy
    size = dy.shape[axis] - before - after
    total = g.slice(dy, [axis], [before], [before + size])
    left = g.slice(dy, [axis], [0], [before]) if before else None
    right = g.slice(dy, [axis], [before + size], [before + size + after]) if after else None
    for border, place in (
        (left, {"reflect": 1, "edge": 0, "wrap": size - before}[mode]),
        (right, {"reflect": size - 1 - after, "edge": size - 1, "wrap": 0}[mode]),
    ):
        if border is not None:
            total = g.add(total, moved(g, _origin(g, border, axis, mode), axis, place, size))
    return total


def _origin(g: Emitter, border: Tensor, axis: int, mode: str) -> Tensor:
    """A border's dy in the order, or at the one place, that mode copied it from."""
    if mode == "reflect":
        return _reversed(g, border, [axis])
    return g.reduce_sum(border, [axis], keepdims=True) if mode == "edge" else border


@vjp("Tile")
def tile_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Repeated ⇒ the sum over the repeats."""
    repeats = call.constant(1)
    split = [part for pair in zip(repeats, call.x.shape, strict=True) for part in pair]
    summed = g.reduce_sum(g.reshape(dy, split), range(0, 2 * call.x.rank, 2))
    return summed, None


@vjp("DepthToSpace")
def depth_to_space_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Channels laid out as blocks ⇒ the blocks gathered into channels again."""
    block = int(call.attrs["blocksize"])
    if call.attrs.get("mode", "DCR") == "DCR":
        return (g.op("SpaceToDepth", dy, blocksize=block),)
    n, c, h, w = call.x.shape
    apart = g.reshape(dy, (n, c // block**2, h, block, w, block))
    return (g.reshape(g.transpose(apart, [0, 1, 3, 5, 2, 4]), (n, c, h, w)),)


@vjp("SpaceToDepth")
def space_to_depth_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Blocks gathered into channels ⇒ laid out again."""
    return (g.op("DepthToSpace", dy, blocksize=int(call.attrs["blocksize"]), mode="DCR"),)


@vjp("Trilu")
def trilu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """One triangle kept ⇒ that triangle of dy."""
    more = call.op.inputs[1:]
    dx = g.op("Trilu", dy, *more, upper=int(call.attrs.get("upper", 1)))
    return [dx, *[None] * len(more)]


@vjp("CumSum")
def cumsum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Running sums ⇒ running sums of dy from the other end."""
    exclusive = int(call.attrs.get("exclusive", 0))
    reverse = 1 - int(call.attrs.get("reverse", 0))
    return g.op("CumSum", dy, call.input(1), exclusive=exclusive, reverse=reverse), None
