"""Ops that pick elements by index, and those that put them back."""

from __future__ import annotations

from math import prod

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


def _zeros(g: Emitter, like: Tensor) -> Tensor:
    return g.expand(g.like(0.0, like), like.shape)


@vjp("Gather")
def gather_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x[i] along an axis ⇒ dy added up at the rows it came from."""
    axis = int(call.attrs.get("axis", 0)) % call.x.rank
    x, indices = call.x, call.input(1)
    count = prod(indices.shape)
    outer, inner = x.shape[:axis], x.shape[axis + 1 :]
    rows = g.reshape(dy, (*outer, count, *inner))
    if indices.value is not None and count == 1:
        return _one_row(g, x, rows, axis, int(indices.value.reshape(()))), None
    column = g.reshape(indices, (*[1] * axis, count, *[1] * len(inner)))
    places = g.expand(column, (*outer, count, *inner))
    scattered = g.op("ScatterElements", _zeros(g, x), places, rows, axis=axis, reduction="add")
    return scattered, None


def _one_row(g: Emitter, x: Tensor, row: Tensor, axis: int, index: int) -> Tensor:
    """A constant row needs no scatter: zeros stand before and after it."""
    before, after = [0] * x.rank, [0] * x.rank
    before[axis] = index % x.shape[axis]
    after[axis] = x.shape[axis] - before[axis] - 1
    return g.pad(row, before, after)


@vjp("GatherElements")
def gather_elements_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x at one index an element ⇒ dy added up at those places."""
    axis = int(call.attrs.get("axis", 0))
    places = call.input(1)
    x = _zeros(g, call.x)
    return g.op("ScatterElements", x, places, dy, axis=axis, reduction="add"), None


@vjp("GatherND")
def gather_nd_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x at one index tuple a slice ⇒ dy added up at those slices."""
    if call.attrs.get("batch_dims", 0):
        call.unsupported("with batch_dims")
    return g.op("ScatterND", _zeros(g, call.x), call.input(1), dy, reduction="add"), None


@vjp("ScatterElements")
def scatter_elements_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Elements replaced or added to ⇒ dy at their places to the updates, the rest to the data."""
    axis, places = int(call.attrs.get("axis", 0)), call.input(1)
    data = dy
    if _replaces(call) and call.wants[0]:
        zeros = _zeros(g, call.input(2))
        data = g.op("ScatterElements", dy, places, zeros, axis=axis)
    picked = g.op("GatherElements", dy, places, axis=axis) if call.wants[2] else None
    return data if call.wants[0] else None, None, picked


@vjp("ScatterND")
def scatter_nd_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Slices replaced or added to ⇒ dy at their places to the updates, the rest to the data."""
    places, data = call.input(1), dy
    if _replaces(call) and call.wants[0]:
        data = g.op("ScatterND", dy, places, _zeros(g, call.input(2)))
    picked = g.op("GatherND", dy, places) if call.wants[2] else None
    return data if call.wants[0] else None, None, picked


def _replaces(call: Call) -> bool:
    reduction = call.attrs.get("reduction", "none")
    if reduction not in ("none", "add"):
        call.unsupported(f"with reduction {reduction}")
    return bool(reduction == "none")


@vjp("TopK")
def topk_vjp(g: Emitter, call: Call, dy: Tensor, _indices: Tensor | None = None) -> Gradients:
    """The largest or smallest along an axis ⇒ dy at their places; the places have none."""
    axis = int(call.attrs.get("axis", -1))
    return g.op("ScatterElements", _zeros(g, call.x), call.op.outputs[1], dy, axis=axis), None
