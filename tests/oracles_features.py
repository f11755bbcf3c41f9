"""What each feature loss computes, in numpy float64, written from the papers and by loops.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

import math

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


def attention_transfer(s: Array, t: Array, *, p: float = 2) -> Array:
    def attention(x: Array) -> Array:
        return unit(np.mean(np.abs(x) ** p, axis=1), tuple(range(1, x.ndim - 1)))

    s, t = same_space(s, t)
    return np.mean((attention(s) - attention(t)) ** 2)


def neuron_selectivity(s: Array, t: Array) -> Array:
    def kernel_mean(a: Array, b: Array) -> Array:
        products = np.einsum("nip,njp->nij", a, b)
        return np.mean(products**2)

    s, t = (unit(x.reshape(*x.shape[:2], -1), (2,)) for x in same_space(s, t))
    return kernel_mean(t, t) + kernel_mean(s, s) - 2 * kernel_mean(s, t)


def flow_matrix(s1: Array, s2: Array, t1: Array, t2: Array) -> Array:
    def flow(first: Array, second: Array) -> Array:
        first, second = (x.reshape(*x.shape[:2], -1) for x in same_space(first, second))
        return np.mean(first[:, :, None] * second[:, None], axis=-1)

    return np.mean((flow(s1, s2) - flow(t1, t2)) ** 2)


def rows(x: Array) -> Array:
    return x.reshape(len(x), -1)


def similarity_preserving(s: Array, t: Array) -> Array:
    s, t = (unit(rows(x) @ rows(x).T, (1,)) for x in (s, t))
    return np.linalg.norm(s - t) ** 2 / len(s) ** 2


def probabilistic_transfer(s: Array, t: Array, *, eps: float = 1e-7) -> Array:
    def choices(x: Array) -> Array:
        directions = rows(x) / (np.linalg.norm(rows(x), axis=1, keepdims=True) + eps)
        similar = (directions @ directions.T + 1) / 2
        return similar / similar.sum(axis=1, keepdims=True)

    p_s, p_t = choices(s), choices(t)
    return np.mean(p_t * np.log((p_t + eps) / (p_s + eps)))


def huber(a: Array, b: Array) -> Array:
    error = np.abs(a - b)
    return np.mean(np.where(error < 1, error**2 / 2, error - 0.5))


def relational_distance(s: Array, t: Array) -> Array:
    def distances(x: Array) -> Array:
        found = np.array([[np.linalg.norm(a - b) for b in rows(x)] for a in rows(x)])
        return found / found[found > 0].mean()

    return huber(distances(s), distances(t))


def relational_angle(s: Array, t: Array) -> Array:
    def cosines(x: Array) -> Array:
        found = np.zeros((len(x), len(x), len(x)))
        for i, j, k in np.ndindex(*found.shape):
            if i not in (j, k):
                a, b = rows(x)[j] - rows(x)[i], rows(x)[k] - rows(x)[i]
                found[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return found

    return huber(cosines(s), cosines(t))


def neighbours_congruence(s: Array, t: Array, *weights: Array) -> Array:
    error = np.abs(projected(rows(s), *weights) - rows(t))
    return np.mean(np.sum(error[:-1] * error[1:], axis=1))


def gaussian_congruence(
    s: Array, t: Array, *weights: Array, gamma: float = float(np.float32(0.4)), order: int = 2
) -> Array:
    def relations(x: Array) -> Array:
        cosines = unit(x, (1,)) @ unit(x, (1,)).T
        terms = [(2 * gamma * cosines) ** p / math.factorial(p) for p in range(order + 1)]
        return np.exp(-2 * gamma) * sum(terms)

    s, t = relations(projected(rows(s), *weights)), relations(rows(t))
    return np.sum((s - t) ** 2) / len(s) ** 2


def variational_information(
    s: Array, t: Array, *weights: Array, eps: float = float(np.float32(1e-5))
) -> Array:
    x, t = same_space(s, t)
    first, second, third, log_scale = weights
    x = np.maximum(pointwise(x, first), 0)
    x = pointwise(np.maximum(pointwise(x, second), 0), third)
    variance = _spread(np.log(1 + np.exp(log_scale)) + eps, x.ndim)
    return np.mean(0.5 * ((x - t) ** 2 / variance + np.log(variance)))
