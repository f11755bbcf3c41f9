"""What each feature loss computes, in numpy float64, written from the papers and by loops.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

BATCH_NORM_EPS = 1e-5


def adaptive_average(x: Array, extents: tuple[int, ...]) -> Array:
    """Means over windows that cover the axes from 2 on, as even as whole numbers allow."""
    y = np.zeros((*x.shape[:2], *extents))
    for place in np.ndindex(*extents):
        window = tuple(
            slice(int(np.floor(i * size / wanted)), int(np.ceil((i + 1) * size / wanted)))
            for i, size, wanted in zip(place, x.shape[2:], extents, strict=True)
        )
        axes = tuple(range(2, x.ndim))
        y[(slice(None), slice(None), *place)] = x[(slice(None), slice(None), *window)].mean(axes)
    return y


def same_space(s: Array, t: Array) -> tuple[Array, Array]:
    """Each spatial axis of the larger side averaged down to the smaller side's."""
    if 2 in (s.ndim, t.ndim):
        return s.reshape(s.shape[:2]), t.reshape(t.shape[:2])
    extents = tuple(min(pair) for pair in zip(s.shape[2:], t.shape[2:], strict=True))
    return adaptive_average(s, extents), adaptive_average(t, extents)


def _spread(values: Array, rank: int) -> Array:
    return values.reshape(-1, *[1] * (rank - 2))


def pointwise(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The affine map of the channels at every place."""
    y = np.einsum("nc...,oc->no...", x, weight.reshape(weight.shape[:2]))
    return y if bias is None else y + _spread(bias, x.ndim)


def projected(
    x: Array, *weights: Array, bias: bool = True, norm: bool = False, relu: bool = False
) -> Array:
    """A projector with its weights in order: weight, bias, scale, shift."""
    if not weights:
        return x
    y = pointwise(x, weights[0], weights[1] if bias else None)
    if norm:
        axes = tuple(axis for axis in range(y.ndim) if axis != 1)
        mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
        scale, shift = (_spread(w, y.ndim) for w in weights[-2:])
        y = scale * (y - mean) / np.sqrt(variance + BATCH_NORM_EPS) + shift
    return np.maximum(y, 0) if relu else y


def matched(s: Array, t: Array, *weights: Array, **projector: bool) -> tuple[Array, Array]:
    """Student and teacher in one space, the student through the projector."""
    s, t = same_space(s, t)
    return projected(s, *weights, **projector), t


def hint(s: Array, t: Array, *weights: Array, **projector: bool) -> Array:
    s, t = matched(s, t, *weights, **projector)
    return np.mean((s - t) ** 2)


def unit(x: Array, axes: tuple[int, ...]) -> Array:
    length = np.sqrt(np.sum(x**2, axes, keepdims=True))
    return x / np.where(length > 0, length, 1)


def l2_distance(
    s: Array, t: Array, *weights: Array, normalize: bool = False, squared: bool = True
) -> Array:
    s, t = matched(s, t, *weights)
    axes = tuple(range(1, s.ndim))
    if normalize:
        s, t = unit(s, axes), unit(t, axes)
    pairs = zip(s, t, strict=True)
    distances = [np.linalg.norm(one - other) ** (2 if squared else 1) for one, other in pairs]
    return np.mean(distances)


def cosine_distance(s: Array, t: Array, *weights: Array) -> Array:
    s, t = matched(s, t, *weights)
    return np.mean(1 - np.sum(unit(s, (1,)) * unit(t, (1,)), axis=1))
