"""Resize: a linear map along each axis, whose matrix is known when the graph is made."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor

Matrix = NDArray[np.float64]


@vjp("Resize")
def resize_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """y = M·x along each resized axis ⇒ dx = Mᵀ·dy along each."""
    for axis in range(call.x.rank):
        if call.x.shape[axis] != call.y.shape[axis]:
            dy = _along(g, dy, _matrix(call, axis), axis)
    return [dy, *[None] * (len(call.op.inputs) - 1)]


def _along(g: Emitter, dy: Tensor, matrix: Matrix, axis: int) -> Tensor:
    """Mᵀ·dy; where every input is repeated equally often, the sum over its copies."""
    out, size = matrix.shape
    outer, inner = dy.shape[:axis], dy.shape[axis + 1 :]
    times = out // size
    if np.array_equal(matrix, np.repeat(np.eye(size), times, axis=0)):
        return g.reduce_sum(g.reshape(dy, (*outer, size, times, *inner)), [axis + 1])
    flat = g.reshape(dy, (prod(outer), out, prod(inner)))
    met = g.matmul(g.constant(matrix.T, dy.dtype), flat)
    return g.reshape(met, (*outer, size, *inner))


def _matrix(call: Call, axis: int) -> Matrix:
    """Row o holds the weights with which output o reads the inputs of an axis."""
    attrs = call.attrs
    if attrs.get("antialias", 0):
        call.unsupported("with antialias")
    size, out = call.x.shape[axis], call.y.shape[axis]
    place = _places(call, size, out, _scale(call, axis))
    matrix = np.zeros((out, size))
    for row in range(out):
        for index, weight in _taps(call, place[row]):
            outside = not 0 <= index < size
            if outside and attrs.get("exclude_outside", 0):
                continue
            matrix[row, min(max(index, 0), size - 1)] += weight
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _scale(call: Call, axis: int) -> float:
    given = call.op.inputs[2] if len(call.op.inputs) > 2 else None
    if given is None or not given.size:
        return call.y.shape[axis] / call.x.shape[axis]
    if given.value is None:
        call.unsupported("with computed scales")
    axes = list(call.attrs.get("axes", range(call.x.rank)))
    return float(given.value[[a % call.x.rank for a in axes].index(axis)])


def _places(call: Call, size: int, out: int, scale: float) -> Matrix:
    """Where each output of an axis lies among its inputs."""
    mode = call.attrs.get("coordinate_transformation_mode", "half_pixel")
    o = np.arange(out, dtype=np.float64)
    half = (o + 0.5) / scale - 0.5
    if mode == "half_pixel":
        return half
    if mode == "pytorch_half_pixel":
        return half if out > 1 else np.zeros(1)
    if mode == "asymmetric":
        return o / scale
    if mode == "align_corners":
        return o * (size - 1) / max(out - 1, 1)
    if mode == "half_pixel_symmetric":
        adjusted = size * (1 - out / (scale * size)) / 2
        return half + adjusted
    return call.unsupported(f"with coordinate_transformation_mode {mode}")


def _taps(call: Call, place: float) -> list[tuple[int, float]]:
    """The inputs that an output at ``place`` reads, each with its weight."""
    mode = call.attrs.get("mode", "nearest")
    if mode == "nearest":
        return [(_nearest(call.attrs, place), 1.0)]
    first = floor(place)
    t = place - first
    if mode == "linear":
        return [(first, 1 - t), (first + 1, t)]
    a = float(call.attrs.get("cubic_coeff_a", -0.75))
    return [(first + k, _cubic(abs(t - k), a)) for k in (-1, 0, 1, 2)]


def _nearest(attrs: Mapping[str, Any], place: float) -> int:
    mode = attrs.get("nearest_mode", "round_prefer_floor")
    if mode in ("floor", "ceil"):
        return floor(place) if mode == "floor" else ceil(place)
    return ceil(place - 0.5) if mode == "round_prefer_floor" else floor(place + 0.5)


def _cubic(distance: float, a: float) -> float:
    """Keys's kernel (1981), with the free parameter ``a``."""
    d = distance
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
