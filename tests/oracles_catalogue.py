"""What the rest of Caffe's catalogue computes, in numpy float64, from Caffe's documentation.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def elu(x: Array, *, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x))


def prelu(x: Array, slope: Array) -> Array:
    per_channel = slope.reshape(slope.shape + (1,) * (x.ndim - 2 if slope.ndim else 0))
    return np.where(x > 0, x, per_channel * x)


def swish(x: Array, *, beta: float = 1.0) -> Array:
    return x / (1 + np.exp(-beta * x))


def threshold(x: Array, *, above: float = 0.0) -> Array:
    return (x > above).astype(np.float64)


def crop(x: Array, reference: Array, *, axis: int = 2, offsets: tuple[int, ...] = ()) -> Array:
    ends = reference.shape[axis:]
    starts = offsets or (0,) * len(ends)
    cut = [slice(start, start + end) for start, end in zip(starts, ends, strict=True)]
    return x[(slice(None),) * (axis % x.ndim) + tuple(cut)]


def argmax(x: Array, *, top_k: int = 1, value: bool = False) -> Array:
    """Places in each flattened item by falling value, a later place before an equal earlier."""
    kinds = 2 if value else 1
    found = np.empty((len(x), kinds, top_k))
    for item, scores in enumerate(x.reshape(len(x), -1)):
        places = sorted(range(scores.size), key=lambda place: (scores[place], place))
        best = places[::-1][:top_k]
        found[item, 0] = best
        if value:
            found[item, 1] = scores[best]
    return found.reshape(*found.shape, *[1] * (x.ndim - 3))


def argmax_along(x: Array, *, axis: int, top_k: int = 1, value: bool = False) -> Array:
    columns = np.moveaxis(x, axis, -1)
    flat = columns.reshape(-1, columns.shape[-1])
    found = argmax(flat, top_k=top_k, value=True)[:, int(value)]
    return np.moveaxis(found.reshape(*columns.shape[:-1], top_k), -1, axis)


def embed(x: Array, w: Array, b: Array | None = None) -> Array:
    found = np.stack([w[int(number)] for number in x.reshape(-1)]).reshape(*x.shape, -1)
    return found if b is None else found + b


def mvn(x: Array, *, across: bool = False, variance: bool = True, eps: float = 1e-9) -> Array:
    axes = tuple(range(1 if across else 2, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    return centred / (x.std(axes, keepdims=True) + eps) if variance else centred
