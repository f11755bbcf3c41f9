"""Sums, means and maxima over axes."""

from __future__ import annotations

from math import prod

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


def _axes(call: Call) -> list[int]:
    rank = call.x.rank
    if len(call.op.inputs) < 2:
        return list(range(rank))
    return [axis % rank for axis in call.constant(1)] or list(range(rank))


def _kept(g: Emitter, call: Call, reduced: Tensor, axes: list[int]) -> Tensor:
    """A reduced tensor with its axes back, of size 1."""
    shape = [1 if axis in axes else size for axis, size in enumerate(call.x.shape)]
    return g.reshape(reduced, shape)


@vjp("ReduceSum")
def reduce_sum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x ⇒ dx = dy at every place."""
    return g.expand(_kept(g, call, dy, _axes(call)), call.x.shape), None


@vjp("ReduceMean")
def reduce_mean_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x / n ⇒ dx = dy / n at every place."""
    axes = _axes(call)
    count = prod(call.x.shape[axis] for axis in axes)
    return g.expand(_kept(g, call, g.mul(dy, 1.0 / count), axes), call.x.shape), None


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max x ⇒ dy where x equals it; equal shares between ties."""
    axes = _axes(call)
    hit = g.cast(g.equal(call.x, _kept(g, call, call.y, axes)), call.x.dtype)
    ties = g.reduce_sum(hit, axes, keepdims=True)
    return g.mul(hit, g.div(_kept(g, call, dy, axes), ties)), None
