"""Normalisation by stored statistics and by those of the batch."""

from __future__ import annotations

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
