"""MaxPool and AveragePool."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from kdnet.autodiff import policy
from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.autodiff.windows import Window, fit, met_by_each, spread
from kdnet.graph import Emitter, Tensor


@vjp("MaxPool")
def max_pool_vjp(g: Emitter, call: Call, dy: Tensor, _indices: Tensor | None = None) -> Gradients:
    """max over a window ⇒ dy to its first maximum in row-major order, as Caffe does.

    The Indices output would tell where that is, but its kernel is slow on the CPU, and on CUDA
    it takes ties in column-major order.
    """
    window = _window(call)
    emit = {"tiles": _max_of_tiles, "separable": _max_by_axis}
    return (emit[policy.max_pool_gradient(window)](g, call.x, call.y, dy, window),)


def _window(call: Call) -> Window:
    if call.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        call.unsupported("with auto_pad: write the pads out")
    return Window.of(call.x, call.y, call.attrs["kernel_shape"], call.attrs)


def upsampled(g: Emitter, x: Tensor, window: Window) -> Tensor:
    """Every element repeated ``stride`` times along each spatial axis."""
    if g.provider == policy.CUDA:
        outer = x.shape[:2]
        sizes = list(zip(window.out, window.strides, strict=True))
        apart = [size for out, _stride in sizes for size in (out, 1)]
        wide = [size for pair in sizes for size in pair]
        repeated = g.expand(g.reshape(x, (*outer, *apart)), (*outer, *wide))
        return g.reshape(repeated, (*outer, *[out * stride for out, stride in sizes]))
    # On the CPU, Resize is far faster than an Expand whose innermost run is a few elements.
    scales = g.constant([1, 1, *window.strides], np.float32)
    return g.op(
        "Resize",
        x,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _max_of_tiles(g: Emitter, x: Tensor, y: Tensor, dy: Tensor, window: Window) -> Tensor:
    """Every maximum of a tile scores, earlier ones more; the best score takes dy."""
    count = prod(window.kernel)
    scores = np.arange(count, 0, -1).reshape(window.kernel)
    ranks = g.constant(np.tile(scores, window.out)[np.newaxis, np.newaxis], x.dtype)
    score = g.mul(g.cast(g.equal(x, upsampled(g, y, window)), x.dtype), ranks)
    best = g.op("MaxPool", score, kernel_shape=list(window.kernel), strides=list(window.strides))
    first = g.equal(score, upsampled(g, best, window))
    return g.mul(g.cast(first, x.dtype), upsampled(g, dy, window))


def _max_by_axis(g: Emitter, x: Tensor, y: Tensor, dy: Tensor, window: Window) -> Tensor:
    """Maxima of rows, then of columns of those; dy goes the same way backwards.

    First to the first row that holds the maximum, there to the first place that does: together
    the first in row-major order.
    """
    maxima = {len(window.kernel): x, 0: y}

    def over(first: int) -> Tensor:
        """Maxima over the axes from ``first`` on."""
        if first not in maxima:
            maxima[first] = _max_along(g, over(first + 1), window, first)
        return maxima[first]

    for axis in window.axes:
        parts = [dy]
        if window.kernel[axis] > 1:
            parts = _first_takes_all(g, over(axis + 1), over(axis), dy, window, axis)
        dy = spread(g, parts, window, axis)
    return dy


def _max_along(g: Emitter, x: Tensor, window: Window, axis: int) -> Tensor:
    ones, zeros = [1] * len(window.kernel), [0] * len(window.kernel)

    def only(values: tuple[int, ...], rest: list[int]) -> list[int]:
        return [*rest[:axis], values[axis], *rest[axis + 1 :]]

    return g.op(
        "MaxPool",
        x,
        kernel_shape=only(window.kernel, ones),
        strides=only(window.strides, ones),
        dilations=only(window.dilations, ones),
        pads=only(window.begin, zeros) + [max(0, end) for end in only(window.end, zeros)],
    )


def _first_takes_all(
    g: Emitter, source: Tensor, target: Tensor, dy: Tensor, window: Window, axis: int
) -> list[Tensor]:
    """dy split by kernel position: to the first that holds the target's value.

    What no other position took is the last one's: it needs no comparison.
    """
    parts: list[Tensor] = []
    count = window.kernel[axis] - 1
    for met in met_by_each(g, source, window, axis, count, -np.inf):
        taken = g.mul(g.cast(g.equal(met, target), dy.dtype), dy)
        parts.append(taken)
        dy = g.sub(dy, taken)
    return [*parts, dy]


@vjp("GlobalAveragePool")
def global_average_pool_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x / n over all places ⇒ dy / n to each."""
    share = g.mul(dy, 1.0 / prod(call.x.shape[2:]))
    return (g.expand(share, call.x.shape),)


@vjp("GlobalMaxPool")
def global_max_pool_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """max over all places ⇒ dy where x equals it; equal shares between ties."""
    hit = g.cast(g.equal(call.x, call.y), call.x.dtype)
    ties = g.reduce_sum(hit, range(2, call.x.rank), keepdims=True)
    return (g.mul(hit, g.div(dy, ties)),)


@vjp("AveragePool")
def average_pool_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ x / n over a window ⇒ dy / n to each of its places."""
    window = _window(call)
    counts = _counts(call, window)
    if np.all(counts == counts.flat[0]):
        even = float(prod(window.kernel) / counts.flat[0])
        dy = g.mul(dy, even)
    else:
        dy = g.mul(dy, g.constant(prod(window.kernel) / counts, dy.dtype))
    lowering = policy.average_pool_gradient(g.provider, window)
    emit = {"tiles": _average_of_tiles, "pooled": _average_pooled, "spread": _average_spread}
    return (emit[lowering](g, dy, window),)


def _counts(call: Call, window: Window) -> NDArray[np.float64]:
    """How many places each window divides by: those inside, or inside and padding."""
    axes = len(window.kernel)
    ends = list(call.attrs.get("pads", [0] * 2 * axes))[axes:]
    padded = bool(call.attrs.get("count_include_pad", 0))
    counts = np.ones([1] * axes)
    for axis in window.axes:
        low = -window.begin[axis] if padded else 0
        high = window.size[axis] + (ends[axis] if padded else 0)
        starts = np.arange(window.out[axis]) * window.strides[axis] - window.begin[axis]
        taps = np.arange(window.kernel[axis]) * window.dilations[axis]
        met = starts[:, np.newaxis] + taps
        inside = ((met >= low) & (met < high)).sum(axis=1)
        counts = counts * inside.reshape([-1 if a == axis else 1 for a in range(axes)])
    return counts


def _average_of_tiles(g: Emitter, dy: Tensor, window: Window) -> Tensor:
    return upsampled(g, g.mul(dy, 1.0 / prod(window.kernel)), window)


def _average_spread(g: Emitter, dy: Tensor, window: Window) -> Tensor:
    share = g.mul(dy, 1.0 / prod(window.kernel))
    for axis in reversed(window.axes):
        share = spread(g, [share] * window.kernel[axis], window, axis)
    return share


def _average_pooled(g: Emitter, dy: Tensor, window: Window) -> Tensor:
    """The windows that hold a place are a window of dy, when dy has its stride in zeros."""
    wide = dy
    if set(window.strides) != {1}:
        corner = np.zeros(window.strides)
        corner.flat[0] = 1
        grid = np.tile(corner, window.out)[np.newaxis, np.newaxis]
        wide = g.mul(upsampled(g, dy, window), g.constant(grid, dy.dtype))
    begin = [size - 1 - pad for size, pad in zip(window.kernel, window.begin, strict=True)]
    each = zip(window.size, wide.shape[2:], window.begin, strict=True)
    end = [size - width + pad for size, width, pad in each]
    return g.op(
        "AveragePool",
        fit(g, wide, [0] * len(end), [min(0, count) for count in end]),
        kernel_shape=list(window.kernel),
        pads=begin + [max(0, count) for count in end],
        count_include_pad=1,
    )
