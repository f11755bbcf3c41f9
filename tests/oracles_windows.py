"""What layers make of sliding windows, in numpy float64, a window at a time.

Nothing here imports kdnet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

Array = np.ndarray
Reduce = Callable[[Array, int], Array]


def im2col(
    x: Array,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """(N, C, X...) to (N, C·K, Y...): what each place of the window meets, as channels."""
    n, channels, *size = x.shape
    out = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, pad, dilation, strict=True)
    ]
    taps = list(product(*map(range, kernel)))
    y = np.zeros((n, channels * len(taps), *out))
    for (row, tap), place in product(enumerate(taps), np.ndindex(*out)):
        each = zip(place, stride, tap, dilation, pad, strict=True)
        at = tuple(o * t + i * d - p for o, t, i, d, p in each)
        if all(0 <= a < s for a, s in zip(at, size, strict=True)):
            y[(slice(None), slice(row, None, len(taps)), *place)] = x[(..., *at)]
    return y


def _windows(
    x: Array, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array, int]]:
    """Each of Caffe's windows: its place, its elements (N, C, K), how many places it counts."""
    size = x.shape[2:]
    count = [
        -(-(s + 2 * p - k) // t) + 1 for s, k, t, p in zip(size, kernel, stride, pad, strict=True)
    ]
    if any(pad):
        each = zip(count, size, stride, pad, strict=True)
        count = [c - int((c - 1) * t >= s + p) for c, s, t, p in each]
    for place in np.ndindex(*count):
        start = [o * t - p for o, t, p in zip(place, stride, pad, strict=True)]
        end = [min(a + k, s + p) for a, k, s, p in zip(start, kernel, size, pad, strict=True)]
        whole = int(np.prod([b - a for a, b in zip(start, end, strict=True)]))
        cuts = tuple(slice(max(a, 0), min(b, s)) for a, b, s in zip(start, end, size, strict=True))
        yield place, x[(slice(None), slice(None), *cuts)].reshape(*x.shape[:2], -1), whole


def pool(
    x: Array,
    reduce: Reduce,
    *,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    pad: Sequence[int] = (),
) -> Array:
    """Caffe's Pooling over any number of axes, rounded up."""
    axes = len(kernel)
    found = list(_windows(x, kernel, stride or [1] * axes, pad or [0] * axes))
    last = found[-1][0]
    y = np.zeros((*x.shape[:2], *(place + 1 for place in last)))
    for place, seen, whole in found:
        y[(slice(None), slice(None), *place)] = reduce(seen, whole)
    return y


def largest(seen: Array, _whole: int) -> Array:
    return seen.max(axis=2)


def mean(seen: Array, whole: int) -> Array:
    return seen.sum(axis=2) / whole


def by_value(seen: Array, _whole: int) -> Array:
    """Σ x² / Σ x, 0 where the sum is not positive."""
    total = seen.sum(axis=2)
    safe = np.where(total > 0, total, 1)
    return np.where(total > 0, (seen**2).sum(axis=2) / safe, 0)


def picked(x: Array, *, noise: Array, kernel: Sequence[int], stride: Sequence[int] = ()) -> Array:
    """Of each window the first element at which the partial sum reaches (1 − u) of the whole."""
    y = np.zeros(noise.shape)
    for place, seen, _whole in _windows(x, kernel, stride or kernel, [0] * len(kernel)):
        for n, c in np.ndindex(*x.shape[:2]):
            sums = np.cumsum(seen[n, c])
            bound = (1 - np.float64(np.float32(noise[(n, c, *place)]))) * sums[-1]
            y[(n, c, *place)] = seen[n, c][np.argmax(sums >= bound)]
    return y


def _level(x: Array, level: int) -> tuple[list[int], list[int]]:
    kernel = [-(-size // 2**level) for size in x.shape[2:]]
    missing = [k * 2**level - size for k, size in zip(kernel, x.shape[2:], strict=True)]
    return kernel, [(count + 1) // 2 for count in missing]


def pyramid(x: Array, reduce: Reduce, *, levels: int) -> Array:
    """Spatial pyramid pooling (He et al. 2014) with Caffe's windows."""
    found = []
    for level in range(levels):
        kernel, pad = _level(x, level)
        found.append(pool(x, reduce, kernel=kernel, stride=kernel, pad=pad))
    if levels == 1:
        return found[0]
    return np.concatenate([y.reshape(len(x), -1) for y in found], axis=1)


def pyramid_picked(x: Array, *, noise: Array, levels: int) -> Array:
    """The same, drawing one element a window; the noise holds the levels one after the other."""
    found, start = [], 0
    for level in range(levels):
        kernel, _pad = _level(x, level)
        count = 4**level
        own = noise[:, :, start : start + count].reshape(*x.shape[:2], 2**level, 2**level)
        found.append(picked(x, noise=own, kernel=kernel).reshape(len(x), -1))
        start += count
    return np.concatenate(found, axis=1)
