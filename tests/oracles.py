"""Formulas in numpy float64, written from papers and the standard, that tests compare with.

Nothing here imports kdnet, and nothing here is fast: each function says what an operation means.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

Array = np.ndarray


def _taps(kernel: Sequence[int]) -> list[tuple[int, ...]]:
    return list(product(*(range(size) for size in kernel)))


def _window(
    padded: Array,
    tap: Sequence[int],
    out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Array:
    """The elements that kernel position ``tap`` meets, one for each output position (a view)."""
    cuts = tuple(
        slice(i * d, i * d + (o - 1) * s + 1, s)
        for i, o, s, d in zip(tap, out, strides, dilations, strict=True)
    )
    return padded[(slice(None), slice(None), *cuts)]


def _padded(x: Array, pads: Sequence[int], value: float = 0.0) -> Array:
    axes = x.ndim - 2
    widths = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    return np.pad(x, widths, constant_values=value)


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int = 1,
) -> Array:
    """y[n, o, p] = b[o] + Σ_{c, k} w[o, c, k] · x[n, c, s·p + d·k − pad], within each group."""
    kernel = w.shape[2:]
    wide = _padded(x, pads)
    out = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(wide.shape[2:], kernel, strides, dilations, strict=True)
    ]
    n, o = x.shape[0], w.shape[0]
    y = np.zeros((n, group, o // group, *out), x.dtype)
    grouped = w.reshape(group, o // group, *w.shape[1:])
    for tap in _taps(kernel):
        seen = _window(wide, tap, out, strides, dilations).reshape(n, group, -1, *out)
        y += np.einsum("ngc...,goc->ngo...", seen, grouped[(..., *tap)])
    y = y.reshape(n, o, *out)
    return y if b is None else y + b.reshape(-1, *[1] * len(kernel))


def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int = 1,
    extra: Sequence[int] | None = None,
) -> Array:
    """y[n, o, s·p + d·k − pad] += Σ_c x[n, c, p] · w[c, o, k], within each group."""
    kernel, shape = w.shape[2:], x.shape[2:]
    axes = len(kernel)
    extra = extra or [0] * axes
    full = [
        (size - 1) * s + d * (k - 1) + 1 + e
        for size, k, s, d, e in zip(shape, kernel, strides, dilations, extra, strict=True)
    ]
    n, o = x.shape[0], w.shape[1] * group
    y = np.zeros((n, o, *full), x.dtype)
    seen = x.reshape(n, group, -1, *shape)
    grouped = w.reshape(group, -1, *w.shape[1:])
    for tap in _taps(kernel):
        part = np.einsum("ngc...,gco->ngo...", seen, grouped[(..., *tap)])
        _window(y, tap, shape, strides, dilations)[...] += part.reshape(n, o, *shape)
    cuts = tuple(
        slice(before, size - after)
        for before, after, size in zip(pads[:axes], pads[axes:], full, strict=True)
    )
    y = y[(slice(None), slice(None), *cuts)]
    return y if b is None else y + b.reshape(-1, *[1] * axes)


def lrn_across(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """x / (k + α/size · Σ x² over ``size`` channels around)^β (Krizhevsky et al. 2012, 3.3)."""
    half = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (half, size - 1 - half)] + [(0, 0)] * (x.ndim - 2))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (k + alpha / size * total) ** beta


def lrn_within(x: Array, size: int, alpha: float, beta: float) -> Array:
    """x / (1 + α/size² · Σ x² over the size × size places around)^β."""
    half = size // 2
    squares = np.pad(x * x, [(0, 0), (0, 0), (half, half), (half, half)])
    rows, columns = x.shape[2:]
    total = sum(
        squares[:, :, i : i + rows, j : j + columns] for i in range(size) for j in range(size)
    )
    return x / (1 + alpha / size**2 * total) ** beta


def convolution(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Sequence[int] = (1,),
    pad: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    group: int = 1,
) -> Array:
    """Caffe's Convolution; a single number holds for every spatial axis."""
    axes = w.ndim - 2
    strides, pads, dilations = (
        list(given) * (axes // len(given)) for given in (stride, pad, dilation)
    )
    return conv(x, w, b, strides=strides, dilations=dilations, pads=pads * 2, group=group)


def _pooled_size(size: int, kernel: int, stride: int, pad: int, ceil: bool, clip: bool) -> int:
    """Caffe's size of the output along one axis."""
    steps = (size + 2 * pad - kernel) / stride
    count = int(np.ceil(steps) if ceil else np.floor(steps)) + 1
    return count - 1 if clip and (count - 1) * stride >= size + pad else count


def pooling(
    x: Array,
    kernel: Sequence[int],
    *,
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    ceil: bool = True,
    average: bool = False,
) -> Array:
    """Caffe's Pooling, window by window."""
    size = x.shape[2:]
    count = [
        _pooled_size(*each, ceil, any(pad)) for each in zip(size, kernel, stride, pad, strict=True)
    ]
    y = np.zeros((*x.shape[:2], *count))
    for place in np.ndindex(*count):
        start = [o * s - p for o, s, p in zip(place, stride, pad, strict=True)]
        end = [min(a + k, n + p) for a, k, n, p in zip(start, kernel, size, pad, strict=True)]
        cuts = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(start, end, size, strict=True))
        seen = x[(slice(None), slice(None), *cuts)]
        whole = (end[0] - start[0]) * (end[1] - start[1])
        found = seen.sum(axis=(2, 3)) / whole if average else seen.max(axis=(2, 3))
        y[(slice(None), slice(None), *place)] = found
    return y


def max_places(x: Array, y: Array, kernel: Sequence[int], stride: Sequence[int]) -> Array:
    """For each maximum, the index in its plane of the first place that holds it."""
    mask = np.zeros(y.shape)
    columns = x.shape[3]
    for n, c, p, q in np.ndindex(*y.shape):
        row, column = p * stride[0], q * stride[1]
        seen = x[n, c, row : row + kernel[0], column : column + kernel[1]]
        i, j = np.argwhere(seen == y[n, c, p, q])[0]
        mask[n, c, p, q] = (row + i) * columns + column + j
    return mask


def max_pool_gradient(
    x: Array, dy: Array, kernel: Sequence[int], strides: Sequence[int], begin: Sequence[int]
) -> Array:
    """dy of each window added to its first maximum in row-major order."""
    dx = np.zeros(x.shape)
    for n, c, *place in np.ndindex(*dy.shape):
        start = [o * s - b for o, s, b in zip(place, strides, begin, strict=True)]
        best = None
        for tap in _taps(kernel):
            at = tuple(a + i for a, i in zip(start, tap, strict=True))
            inside = all(0 <= p < size for p, size in zip(at, x.shape[2:], strict=True))
            if inside and (best is None or x[(n, c, *at)] > x[(n, c, *best)]):
                best = at
        dx[(n, c, *best)] += dy[(n, c, *place)]
    return dx
