"""Pointwise nonlinearities and the softmax pair."""

from __future__ import annotations

from math import pi, sqrt

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@vjp("Relu")
def relu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max(x, 0) ⇒ dx = dy where x > 0, else 0 (Caffe's choice at 0)."""
    return (g.where(g.greater(call.y, 0.0), dy, 0.0),)


@vjp("LeakyRelu")
def leaky_relu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > 0 ? x : αx ⇒ dx = x > 0 ? dy : α·dy."""
    slope = float(call.attrs.get("alpha", 0.01))
    return (g.where(g.greater(call.x, 0.0), dy, g.mul(dy, slope)),)


@vjp("PRelu")
def prelu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > 0 ? x : s·x ⇒ dx = x > 0 ? dy : s·dy, ds = x > 0 ? 0 : dy·x."""
    x, slope = call.x, call.input(1)
    passed = g.greater(x, 0.0)
    return (
        g.where(passed, dy, g.mul(dy, slope)) if call.wants[0] else None,
        g.where(passed, 0.0, g.mul(dy, x)) if call.wants[1] else None,
    )


@vjp("ThresholdedRelu")
def thresholded_relu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > α ? x : 0 ⇒ dx = x > α ? dy : 0."""
    return (g.where(g.greater(call.x, float(call.attrs.get("alpha", 1.0))), dy, 0.0),)


@vjp("Elu")
def elu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > 0 ? x : α(e^x − 1) ⇒ dx = x > 0 ? dy : dy·(y + α)."""
    alpha = float(call.attrs.get("alpha", 1.0))
    return (g.where(g.greater(call.x, 0.0), dy, g.mul(dy, g.add(call.y, alpha))),)


@vjp("Selu")
def selu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x > 0 ? γx : γα(e^x − 1) ⇒ dx = x > 0 ? γ·dy : dy·(y + γα)."""
    alpha = float(call.attrs.get("alpha", SELU_ALPHA))
    gamma = float(call.attrs.get("gamma", SELU_GAMMA))
    below = g.mul(dy, g.add(call.y, gamma * alpha))
    return (g.where(g.greater(call.x, 0.0), g.mul(dy, gamma), below),)


@vjp("HardSigmoid")
def hard_sigmoid_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """min(max(αx + β, 0), 1) ⇒ dx = α·dy where 0 < y < 1, else 0."""
    slope = float(call.attrs.get("alpha", 0.2))
    inside = g.op("And", g.greater(call.y, 0.0), g.less(call.y, 1.0))
    return (g.where(inside, g.mul(dy, slope), 0.0),)


@vjp("HardSwish")
def hard_swish_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x·min(max(x/6 + 1/2, 0), 1) ⇒ dx = dy·(x/3 + 1/2) where |x| < 3, else 0 or dy."""
    x = call.x
    sloped = g.mul(dy, g.add(g.mul(x, 1 / 3), 0.5))
    return (g.where(g.less(x, 3.0), g.where(g.greater(x, -3.0), sloped, 0.0), dy),)


@vjp("Mish")
def mish_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x·t, t = tanh(ln(1 + e^x)) ⇒ dx = dy·(t + x·(1 − t²)·σ(x))."""
    x = call.x
    t = g.tanh(g.op("Softplus", x))
    slope = g.mul(g.mul(x, g.sub(1.0, g.square(t))), g.sigmoid(x))
    return (g.mul(dy, g.add(t, slope)),)


@vjp("Gelu")
def gelu_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x·Φ(x) ⇒ dx = dy·(Φ(x) + x·Φ'(x)), with Φ by erf or by its tanh approximation."""
    x = call.x
    if call.attrs.get("approximate", "none") == "tanh":
        cubed = g.mul(g.square(x), 0.044715)
        t = g.tanh(g.mul(g.mul(x, g.add(cubed, 1.0)), sqrt(2 / pi)))
        inner = g.mul(g.add(g.mul(cubed, 3.0), 1.0), sqrt(2 / pi) / 2)
        density = g.mul(g.sub(1.0, g.square(t)), inner)
        share = g.mul(g.add(t, 1.0), 0.5)
    else:
        density = g.mul(g.exp(g.mul(g.square(x), -0.5)), 1 / sqrt(2 * pi))
        share = g.mul(g.add(g.op("Erf", g.mul(x, sqrt(0.5))), 1.0), 0.5)
    return (g.mul(dy, g.add(share, g.mul(x, density))),)


@vjp("Softsign")
def softsign_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x / (1 + |x|) ⇒ dx = dy·(1 − |y|)²."""
    return (g.mul(dy, g.square(g.sub(1.0, g.abs(call.y)))),)


@vjp("Sigmoid")
def sigmoid_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """σ(x) ⇒ dx = dy·y·(1 − y)."""
    return (g.mul(dy, g.mul(call.y, g.sub(1.0, call.y))),)


@vjp("Tanh")
def tanh_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """tanh(x) ⇒ dx = dy·(1 − y²)."""
    return (g.mul(dy, g.sub(1.0, g.square(call.y))),)


@vjp("SigmoidOfStep")
def sigmoid_of_step_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """σ(x) ⇒ dx = t − t·y, t = dy·y: the same, and every node of it waits for dy.

    What waits for y alone is ready long before it is wanted; ONNX Runtime keeps such nodes in a
    sorted list while it orders a graph, so an unrolled layer with some in each step would load in
    a time quadratic in its steps.
    """
    passed = g.mul(dy, call.y)
    return (g.sub(passed, g.mul(passed, call.y)),)


@vjp("TanhOfStep")
def tanh_of_step_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """tanh(x) ⇒ dx = dy − dy·y·y, every node of which waits for dy, as in SigmoidOfStep."""
    return (g.sub(dy, g.mul(g.mul(dy, call.y), call.y)),)


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
