"""What each layer computes, in numpy float64, written from Caffe's documentation and the papers.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray

# What a float32 field of a prototxt holds when one of these is written there.
EPS = float(np.float32(1e-5))
KEPT = float(np.float32(0.999))


def relu(x: Array, *, slope: float = 0.0) -> Array:
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def dropout(x: Array, *, noise: Array, ratio: float) -> Array:
    """Inverted dropout: what is kept is scaled up, so the expectation stays."""
    return np.where(noise.astype(np.float32) > ratio, x / (1 - ratio), 0.0)


def _over_channels(x: Array, channel_values: Array) -> Array:
    return channel_values.reshape(-1, *[1] * (x.ndim - 2))


def batch_norm_stored(x: Array, mean: Array, var: Array, factor: Array, *, eps: float) -> Array:
    """By the running sums divided by their accumulated weight."""
    share = 0.0 if factor[0] == 0 else 1 / factor[0]
    centred = x - _over_channels(x, mean * share)
    return centred / np.sqrt(_over_channels(x, var * share) + eps)


def batch_norm_train(
    x: Array, mean: Array, var: Array, factor: Array, *, eps: float = EPS, kept: float = KEPT
) -> tuple[Array, ...]:
    """By the batch's own statistics; also the running sums after it, the variance unbiased."""
    columns = x.reshape(-1, 1) if x.ndim == 1 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    count = len(columns)
    batch_mean, batch_var = columns.mean(axis=0), columns.var(axis=0)
    spread = batch_mean[0] if x.ndim == 1 else _over_channels(x, batch_mean)
    width = batch_var[0] if x.ndim == 1 else _over_channels(x, batch_var)
    y = (x - spread) / np.sqrt(width + eps)
    unbiased = batch_var * count / (count - 1) if count > 1 else batch_var
    return y, kept * mean + batch_mean, kept * var + unbiased, kept * factor + 1


def affine(x: Array, scale: Array | None, bias: Array | None, *, axis: int) -> Array:
    """x · scale + bias, both on the axes of x from ``axis`` on."""

    def spread(values: Array) -> Array:
        before, after = axis % x.ndim, x.ndim - axis % x.ndim - values.ndim
        shape = (1,) * before + values.shape + (1,) * after if values.ndim else ()
        return values.reshape(shape)

    y = x if scale is None else x * spread(scale)
    return y if bias is None else y + spread(bias)


def inner_product(
    x: Array, w: Array, b: Array | None = None, *, axis: int = 1, transpose: bool = False
) -> Array:
    outer = x.shape[:axis]
    y = x.reshape(int(np.prod(outer)), -1) @ (w if transpose else w.T)
    return (y if b is None else y + b).reshape(*outer, -1)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax(x: Array, *, axis: int = 1) -> Array:
    return np.exp(log_softmax(x, axis))


def _items(scores: Array, labels: Array, axis: int) -> list[tuple[Array, int]]:
    """The scores of each prediction with its label, in row-major order."""
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    return list(zip(rows, labels.reshape(-1).astype(int).tolist(), strict=True))


def divisor(mode: str, *, predictions: int, counted: int, items: int) -> int:
    """What a loss is divided by."""
    sizes = {"FULL": predictions, "VALID": counted, "BATCH_SIZE": items, "NONE": 1}
    return max(sizes[mode], 1)


def softmax_loss(
    x: Array, labels: Array, *, axis: int = 1, mode: str = "VALID", ignore: int | None = None
) -> Array:
    """The mean of −ln p(label), p no smaller than the smallest normal float32."""
    pairs = _items(softmax(x, axis=axis), labels, axis)
    kept = [(p, label) for p, label in pairs if label != ignore]
    total = -sum(np.log(max(p[label], 2.0**-126)) for p, label in kept)
    items = int(np.prod(x.shape[: axis % x.ndim]))
    z = divisor(mode, predictions=len(pairs), counted=len(kept), items=items)
    return np.asarray(total / z)


def sigmoid_loss(
    x: Array, target: Array, *, mode: str = "BATCH_SIZE", ignore: int | None = None
) -> Array:
    """−Σ t ln σ(x) + (1 − t) ln(1 − σ(x)), over the divisor."""
    t = target.reshape(x.shape)
    counted = np.trunc(t) != ignore if ignore is not None else np.ones(x.shape, bool)
    terms = -(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x)))
    z = divisor(mode, predictions=x.size, counted=int(counted.sum()), items=x.shape[0])
    return np.asarray(terms[counted].sum() / z)


def euclidean_loss(a: Array, b: Array) -> Array:
    return np.asarray(np.linalg.norm((a - b.reshape(a.shape)).reshape(-1)) ** 2 / (2 * len(a)))


def distillation_loss(
    student: Array,
    teacher: Array,
    *,
    temperature: float = 1.0,
    squared: bool = True,
    axis: int = 1,
    mode: str = "VALID",
) -> Array:
    """Hinton et al. 2015: cross entropy of the softened distributions, times T²."""
    p, q = softmax(teacher / temperature, axis=axis), softmax(student / temperature, axis=axis)
    total = -np.sum(p * np.log(q)) * (temperature**2 if squared else 1)
    count = student.size // student.shape[axis]
    items = int(np.prod(student.shape[: axis % student.ndim]))
    return np.asarray(total / divisor(mode, predictions=count, counted=count, items=items))


def accuracy(
    x: Array, labels: Array, *, axis: int = 1, top_k: int = 1, ignore: int | None = None
) -> tuple[Array, Array]:
    """The share of items with fewer than top_k other scores as good, in all and by class."""
    right: dict[int, list[bool]] = {}
    for scores, label in _items(x, labels, axis):
        if label != ignore:
            others = np.delete(scores, label)
            right.setdefault(label, []).append(int((others >= scores[label]).sum()) < top_k)
    every = [hit for hits in right.values() for hit in hits]
    classes = [right.get(label, [False]) for label in range(x.shape[axis])]
    return np.asarray(np.mean(every or [0.0])), np.array([np.mean(hits) for hits in classes])


def cut(x: Array, points: Sequence[int], axis: int) -> tuple[Array, ...]:
    return tuple(np.split(x, points, axis))


def first(function: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
    """The function without its tops but the first."""
    return lambda *arrays, **parameters: function(*arrays, **parameters)[0]
