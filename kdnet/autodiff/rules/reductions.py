"""Sums, means, norms, products and extrema over axes."""

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


@vjp("ReduceL1")
def reduce_l1_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ |x| ⇒ dx = dy·sign(x), 0 at 0."""
    return _by_input(call, g.mul(_kept(g, call, dy, _axes(call)), g.sign(call.x)))


@vjp("ReduceL2")
def reduce_l2_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """√(Σ x²) ⇒ dx = dy·x/y, 0 where y = 0."""
    y = _kept(g, call, call.y, _axes(call))
    share = g.div(_kept(g, call, dy, _axes(call)), g.where(g.equal(y, 0.0), 1.0, y))
    return _by_input(call, g.mul(call.x, share))


@vjp("ReduceSumSquare")
def reduce_sum_square_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x² ⇒ dx = 2·dy·x."""
    return _by_input(call, g.mul(call.x, g.mul(_kept(g, call, dy, _axes(call)), 2.0)))


@vjp("ReduceLogSum")
def reduce_log_sum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """ln Σ x ⇒ dx = dy / Σ x at every place."""
    share = g.div(dy, g.exp(call.y))
    return _by_input(call, g.expand(_kept(g, call, share, _axes(call)), call.x.shape))


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """ln Σ e^x ⇒ dx = dy·e^(x − y)."""
    axes = _axes(call)
    shares = g.exp(g.sub(call.x, _kept(g, call, call.y, axes)))
    return _by_input(call, g.mul(shares, _kept(g, call, dy, axes)))


@vjp("ReduceProd")
def reduce_prod_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Π x ⇒ dx = dy times the product of the others, zeros among them included."""
    axes = _axes(call)
    zero = g.equal(call.x, 0.0)
    filled = g.where(zero, 1.0, call.x)
    zeros = g.reduce_sum(g.cast(zero, call.x.dtype), axes, keepdims=True)
    product = g.op("ReduceProd", filled, g.ints(*axes), keepdims=1)
    alone = g.where(g.equal(zeros, 1.0), product, 0.0)
    none = g.where(g.equal(zeros, 0.0), product, 0.0)
    others = g.where(zero, alone, g.div(none, filled))
    return _by_input(call, g.mul(others, _kept(g, call, dy, axes)))
