"""Elementwise arithmetic: the walk undoes the broadcasting."""

from __future__ import annotations

from math import pi, sqrt

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


@vjp("Add")
def add_vjp(_g: Emitter, _call: Call, dy: Tensor) -> Gradients:
    """a + b ⇒ da = dy, db = dy."""
    return dy, dy


@vjp("Sub")
def sub_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """a − b ⇒ da = dy, db = −dy."""
    return dy, g.neg(dy) if call.wants[1] else None


@vjp("Mul")
def mul_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """a·b ⇒ da = dy·b, db = dy·a; a square gives 2·dy·a at once."""
    a, b = call.input(0), call.input(1)
    if a is b:
        return g.mul(g.mul(dy, a), 2.0), None
    return (
        g.mul(dy, b) if call.wants[0] else None,
        g.mul(dy, a) if call.wants[1] else None,
    )


@vjp("Div")
def div_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """a/b ⇒ da = dy/b, db = −dy·y/b."""
    b = call.input(1)
    da = g.div(dy, b)
    return da, g.neg(g.mul(da, call.y)) if call.wants[1] else None


@vjp("Neg")
def neg_vjp(g: Emitter, _call: Call, dy: Tensor) -> Gradients:
    """−x ⇒ dx = −dy."""
    return (g.neg(dy),)


@vjp("Pow")
def pow_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x^p ⇒ dx = dy·p·x^(p−1), exactly 0 where p = 0; dp = dy·y·ln x, 0 where x ≤ 0."""
    x, exponent = call.x, call.input(1)
    if exponent.value is not None and exponent.size == 1:
        dx = _constant_power(g, x, float(exponent.value.reshape(())), dy)
        return (dx if call.wants[0] else None), None
    p = g.cast(exponent, x.dtype)
    dx = dp = None
    if call.wants[0]:
        flat = g.equal(p, 0.0)
        power = g.pow(x, g.where(flat, 1.0, g.sub(p, 1.0)))
        dx = g.mul(dy, g.where(flat, 0.0, g.mul(p, power)))
    if call.wants[1]:
        usable = g.greater(x, 0.0)
        dp = g.mul(dy, g.mul(call.y, g.log(g.where(usable, x, 1.0))))
    return dx, dp


def _constant_power(g: Emitter, x: Tensor, p: float, dy: Tensor) -> Tensor | None:
    if p == 0:
        return None
    if p == 1:
        return dy
    power = x if p == 2 else g.pow(x, p - 1)
    return g.mul(dy, g.mul(power, p))


@vjp("Sin")
def sin_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """sin(x) ⇒ dx = dy·cos(x)."""
    return (g.mul(dy, g.op("Cos", call.x)),)


@vjp("Cos")
def cos_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """cos(x) ⇒ dx = −dy·sin(x)."""
    return (g.neg(g.mul(dy, g.op("Sin", call.x))),)


@vjp("Erf")
def erf_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """erf(x) ⇒ dx = dy·2/√π·e^(−x²)."""
    return (g.mul(dy, g.mul(g.exp(g.neg(g.square(call.x))), 2 / sqrt(pi))),)


@vjp("Sqrt")
def sqrt_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """√x ⇒ dx = dy / (2y)."""
    return (g.div(dy, g.mul(call.y, 2.0)),)


@vjp("Reciprocal")
def reciprocal_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """1/x ⇒ dx = −dy·y²."""
    return (g.neg(g.mul(dy, g.square(call.y))),)


@vjp("Abs")
def abs_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """|x| ⇒ dx = dy·sign(x), 0 at 0."""
    return (g.mul(dy, g.sign(call.x)),)


@vjp("Max", "Min")
def extremum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max(a, b, ...) ⇒ dy to the winner; a tie goes to the first, as Caffe's Eltwise MAX does."""
    count = len(call.op.inputs)
    if count != 2:
        return _first_of_many(g, call, dy)
    a, b = call.input(0), call.input(1)
    beaten = g.greater(b, a) if call.op.type == "Max" else g.less(b, a)
    return (
        g.where(beaten, 0.0, dy) if call.wants[0] else None,
        g.where(beaten, dy, 0.0) if call.wants[1] else None,
    )


def _first_of_many(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """dy to the first input that equals the output; what no other took is the last one's."""
    found: list[Tensor | None] = []
    last = len(call.wants) - 1
    for index, want in enumerate(call.wants):
        if not any(call.wants[index:]):
            found.append(None)
        elif index == last:
            found.append(dy)
        else:
            hit = g.equal(call.input(index), call.y)
            found.append(g.where(hit, dy, 0.0) if want else None)
            if any(call.wants[index + 1 :]):
                dy = g.where(hit, 0.0, dy)
    return found


@vjp("Sum")
def sum_vjp(_g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ xᵢ ⇒ dxᵢ = dy."""
    return [dy] * len(call.op.inputs)


@vjp("Where")
def where_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """c ? a : b ⇒ da = c ? dy : 0, db = c ? 0 : dy."""
    condition = call.input(0)
    return (
        None,
        g.where(condition, dy, 0.0) if call.wants[1] else None,
        g.where(condition, 0.0, dy) if call.wants[2] else None,
    )


@vjp("Clip")
def clip_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """min(max(x, lo), hi) ⇒ dx = dy where x came through unchanged, else 0."""
    passed = g.where(g.equal(call.x, call.y), dy, 0.0)
    return [passed] + [None] * (len(call.op.inputs) - 1)
