"""Pointwise nonlinearities and the softmax pair."""

from __future__ import annotations

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


@vjp("Relu")
def relu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max(x, 0) ⇒ dx = dy where x > 0, else 0 (Caffe's choice at 0)."""
    return (g.where(g.greater(call.y, 0.0), dy, 0.0),)


@vjp("LeakyRelu")
def leaky_relu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > 0 ? x : αx ⇒ dx = x > 0 ? dy : α·dy."""
    slope = float(call.attrs.get("alpha", 0.01))
    return (g.where(g.greater(call.x, 0.0), dy, g.mul(dy, slope)),)


@vjp("Sigmoid")
def sigmoid_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """σ(x) ⇒ dx = dy·y·(1 − y)."""
    return (g.mul(dy, g.mul(call.y, g.sub(1.0, call.y))),)


@vjp("Tanh")
def tanh_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """tanh(x) ⇒ dx = dy·(1 − y²)."""
    return (g.mul(dy, g.sub(1.0, g.square(call.y))),)


@vjp("Exp")
def exp_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """e^x ⇒ dx = dy·y."""
    return (g.mul(dy, call.y),)


@vjp("Log")
def log_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """ln(x) ⇒ dx = dy/x."""
    return (g.div(dy, call.x),)


@vjp("Softplus")
def softplus_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """ln(1 + e^x) ⇒ dx = dy·σ(x)."""
    return (g.mul(dy, g.sigmoid(call.x)),)


@vjp("Softmax")
def softmax_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """softmax(x) ⇒ dx = y·(dy − Σ dy·y) over the axis."""
    axis = int(call.attrs.get("axis", -1)) % call.x.rank
    inner = g.reduce_sum(g.mul(dy, call.y), [axis], keepdims=True)
    return (g.mul(call.y, g.sub(dy, inner)),)


@vjp("LogSoftmax")
def log_softmax_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """ln softmax(x) ⇒ dx = dy − softmax(x)·Σ dy over the axis."""
    axis = int(call.attrs.get("axis", -1)) % call.x.rank
    total = g.reduce_sum(dy, [axis], keepdims=True)
    return (g.sub(dy, g.mul(g.exp(call.y), total)),)
