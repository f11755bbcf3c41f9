"""Normalisation by stored statistics and by those of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


@vjp("BatchNormalization")
def batch_normalization_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """s·(x − m)/√(v + ε) + b ⇒ dx = dy·s/√(v + ε), ds = Σ dy·(x − m)/√(v + ε), db = Σ dy."""
    if call.attrs.get("training_mode", 0) or call.wants[3] or call.wants[4]:
        call.unsupported("by its statistics")
    x, scale, mean, variance = call.x, call.input(1), call.input(3), call.input(4)
    channels = (scale.size, *[1] * (x.rank - 2))
    axes = [axis for axis in range(x.rank) if axis != 1]
    dx = ds = None
    db = g.reduce_sum(dy, axes) if call.wants[2] else None
    if call.wants[0] or call.wants[1]:
        deviation = g.sqrt(g.add(variance, call.attrs.get("epsilon", 1e-5)))
        if call.wants[0]:
            dx = g.mul(dy, g.reshape(g.div(scale, deviation), channels))
        if call.wants[1]:
            centred = g.sub(x, g.reshape(mean, channels))
            ds = g.div(g.reduce_sum(g.mul(dy, centred), axes), deviation)
    return dx, ds, db, None, None


@vjp("LayerNormalization")
def layer_normalization_vjp(
    g: Emitter, call: Call, dy: Tensor, *statistics: Tensor | None
) -> Gradients:
    """s·(x − μ)/√(v + ε) + b over the axes from ``axis`` on ⇒ as Standardize, with its μ and v."""
    if any(gradient is not None for gradient in statistics):
        call.unsupported("by its statistics")
    x, scale = call.x, call.input(1)
    axes = list(range(int(call.attrs.get("axis", -1)) % x.rank, x.rank))
    dx = ds = None
    if call.wants[0] or call.wants[1]:
        deviation = _Standard(g, x, axes, float(call.attrs.get("epsilon", 1e-5)))
        dx = deviation.gradient(g.mul(dy, scale)) if call.wants[0] else None
        ds = g.mul(dy, deviation.y) if call.wants[1] else None
    return [dx, ds, dy][: len(call.op.inputs)]


@vjp("InstanceNormalization")
def instance_normalization_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """s·(x − μ)/√(v + ε) + b over each item's channel ⇒ as Standardize, by its own μ and v."""
    x = call.x
    wide = (call.input(1).size, *[1] * (x.rank - 2))
    axes = list(range(2, x.rank))
    dx = ds = None
    if call.wants[0] or call.wants[1]:
        deviation = _Standard(g, x, axes, float(call.attrs.get("epsilon", 1e-5)))
        if call.wants[0]:
            dx = deviation.gradient(g.mul(dy, g.reshape(call.input(1), wide)))
        if call.wants[1]:
            ds = g.reduce_sum(g.mul(dy, deviation.y), [0, *axes])
    return dx, ds, g.reduce_sum(dy, [0, *axes]) if call.wants[2] else None


class _Standard:
    """x less its mean over axes, divided by its standard deviation there."""

    def __init__(self, g: Emitter, x: Tensor, axes: list[int], epsilon: float) -> None:
        self.g, self.axes = g, axes
        centred = g.sub(x, g.reduce_mean(x, axes, keepdims=True))
        variance = g.reduce_mean(g.square(centred), axes, keepdims=True)
        self.inverse = g.op("Reciprocal", g.sqrt(g.add(variance, epsilon)))
        self.y = g.mul(centred, self.inverse)

    def gradient(self, dy: Tensor) -> Tensor:
        """dx = r·(dy − mean dy − y·mean dy·y)."""
        g = self.g
        along = g.reduce_mean(g.mul(dy, self.y), self.axes, keepdims=True)
        offset = g.add(g.reduce_mean(dy, self.axes, keepdims=True), g.mul(self.y, along))
        return g.mul(g.sub(dy, offset), self.inverse)


@vjp("LRN")
def lrn_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """x·s^−β, s = k + α/n·Σ x² over n channels ⇒ dx = dy·s^−β − 2αβ/n·x·Σ dy·y/s."""
    size = int(call.attrs["size"])
    alpha, beta = float(call.attrs.get("alpha", 1e-4)), float(call.attrs.get("beta", 0.75))
    x = call.x
    channels = np.arange(x.shape[1])
    reach = channels[:, np.newaxis] - channels
    near = (reach <= (size - 1) // 2) & (-reach <= size // 2)
    shape = (*x.shape[1:2], *x.shape[1:2], *[1] * (x.rank - 2))

    def around(values: Tensor, band: np.ndarray[Any, Any]) -> Tensor:
        return g.op("Conv", values, g.constant(np.reshape(band * alpha / size, shape), x.dtype))

    s = g.add(around(g.square(x), near), float(call.attrs.get("bias", 1.0)))
    shared = around(g.div(g.mul(dy, call.y), s), near.T)
    own = g.mul(dy, g.exp(g.mul(g.log(s), -beta)))
    return (g.sub(own, g.mul(g.mul(x, shared), 2.0 * beta)),)


@vjp("Standardize")
def standardize_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """d·r, where r = 1/√(mean d² + ε) and mean d = 0 over the axes on which r has size 1.

    ⇒ dd = r·(dy − mean dy − y·mean dy·y), the path through both statistics included: so they
    must be under stop_gradient. The rules of the single ops give the same with half as many
    passes over memory again.
    """
    d, r, y = call.input(0), call.input(1), call.y
    axes = [axis for axis, size in enumerate(r.shape) if size == 1 and d.shape[axis] != 1]
    along = g.mul(_mean(g, g.mul(dy, y), axes), r)
    offset = g.mul(_mean(g, dy, axes), r)
    return g.sub(g.mul(dy, r), g.add(g.mul(y, along), offset)), None


def _mean(g: Emitter, x: Tensor, axes: list[int]) -> Tensor:
    """Rows first: ONNX Runtime is slow where leading and trailing axes go at once."""
    rows = g.reduce_mean(x, [axis for axis in axes if axis > 1], keepdims=True)
    return g.reduce_mean(rows, [axis for axis in axes if axis <= 1], keepdims=True)
