"""Sums, means and maxima over axes."""

from __future__ import annotations

from math import prod

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


def _axes(call: Call) -> list[int]:
    rank = call.x.rank
    given = call.constant(1) if len(call.op.inputs) > 1 else []
    if not given and call.attrs.get("noop_with_empty_axes", 0):
        call.unsupported("with noop_with_empty_axes")
    return [axis % rank for axis in given] or list(range(rank))


def _by_input(call: Call, dx: Tensor) -> Gradients:
    """The axes, where they are an input, have no gradient."""
    return [dx, None][: len(call.op.inputs)]


def _kept(g: Emitter, call: Call, reduced: Tensor, axes: list[int]) -> Tensor:
    """A reduced tensor with its axes back, of size 1."""
    shape = [1 if axis in axes else size for axis, size in enumerate(call.x.shape)]
    return g.reshape(reduced, shape)


@vjp("ReduceSum")
def reduce_sum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x ⇒ dx = dy at every place."""
    return _by_input(call, g.expand(_kept(g, call, dy, _axes(call)), call.x.shape))


@vjp("ReduceMean")
def reduce_mean_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x / n ⇒ dx = dy / n at every place."""
    axes = _axes(call)
    count = prod(call.x.shape[axis] for axis in axes)
    share = _kept(g, call, g.mul(dy, 1.0 / count), axes)
    return _by_input(call, g.expand(share, call.x.shape))


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max x ⇒ dy where x equals it; equal shares between ties."""
    axes = _axes(call)
    hit = g.cast(g.equal(call.x, _kept(g, call, call.y, axes)), call.x.dtype)
    ties = g.reduce_sum(hit, axes, keepdims=True)
    return _by_input(call, g.mul(hit, g.div(_kept(g, call, dy, axes), ties)))
