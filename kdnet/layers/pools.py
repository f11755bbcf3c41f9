"""What is made of the windows of a blob: their maximum, mean, or a random element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.windows import Geometry, windows


@dataclass(frozen=True)
class Side:
    """The windows along one axis: ``count`` of them, the o-th from ``o·stride − pad`` on."""

    size: int
    kernel: int
    stride: int
    pad: int
    count: int

    @property
    def end(self) -> int:
        """How far the last window goes beyond the input."""
        return max(0, (self.count - 1) * self.stride - self.pad + self.kernel - self.size)

    @property
    def meets(self) -> bool:
        """Whether there is a window, and none lies outside the input."""
        return self.count > 0 and (self.count - 1) * self.stride - self.pad < self.size

    def counted(self) -> list[int]:
        """For each window, its places in the input and its stated padding on both sides."""
        starts = [index * self.stride - self.pad for index in range(self.count)]
        return [min(start + self.kernel, self.size + self.pad) - start for start in starts]


def side(size: int, kernel: int, stride: int, pad: int, *, ceil: bool, clips: bool) -> Side:
    """Caffe's windows along one axis.

    ``ceil`` keeps a last partial window; ``clips`` drops a last one that begins behind the input.
    """
    room = size + 2 * pad - kernel
    count = (-(-room // stride) if ceil else room // stride) + 1
    if clips and (count - 1) * stride >= size + pad:
        count -= 1
    # Nothing changes beyond the padded input, but the op rules' work grows with both.
    whole = size + 2 * pad
    last = Side(size, kernel, stride, pad, count)
    return Side(size, min(kernel, whole), min(stride, whole), pad, count) if last.meets else last


def max_pool(g: Emitter, x: Tensor, sides: Sequence[Side]) -> Tensor:
    """The maximum of each window."""
    return g.op("MaxPool", x, **_attrs(sides))


def max_pool_with_places(g: Emitter, x: Tensor, sides: Sequence[Side]) -> tuple[Tensor, Tensor]:
    """The maximum of each window, and its index in the plane."""
    y, found = g.multi("MaxPool", x, count=2, **_attrs(sides))
    return y, g.cast(g.op("Mod", found, g.ints(prod(side.size for side in sides))))


def average_pool(g: Emitter, x: Tensor, sides: Sequence[Side]) -> Tensor:
    """The mean of each window; padding counts where it is stated, not where it fills up."""
    y = g.op("AveragePool", x, count_include_pad=1, **_attrs(sides))
    # The op counts the whole window; where fewer places count, a factor makes up for it.
    places = reduce(np.multiply.outer, [np.array(side.counted()) for side in sides])
    factor = prod(side.kernel for side in sides) / places
    if np.all(factor == 1):
        return y
    return g.mul(y, g.constant(factor[np.newaxis, np.newaxis]))


def mean_by_value(g: Emitter, x: Tensor, sides: Sequence[Side]) -> Tensor:
    """Each window's mean, weighted by the values themselves; 0 where they add up to no more."""
    squares, values = (
        g.op("AveragePool", source, count_include_pad=1, **_attrs(sides))
        for source in (g.square(x), x)
    )
    some = g.greater(values, 0.0)
    return g.where(some, g.div(squares, g.where(some, values, 1.0)), 0.0)


def pick_by_value(g: Emitter, x: Tensor, sides: Sequence[Side], noise: Tensor) -> Tensor:
    """One element of each window, drawn with a probability proportional to its value."""
    geometry = Geometry(
        1,
        tuple(side.kernel for side in sides),
        tuple(side.stride for side in sides),
        tuple(side.pad for side in sides),
        (1,) * len(sides),
    )
    # What fills up a last window is 0, so it adds nothing to the sums and comes last.
    before = [0, 0, *geometry.pads]
    seen = windows(g, g.pad(x, before, [0, 0, *(side.end for side in sides)]), geometry)
    seen = g.reshape(seen, (*x.shape[:2], prod(geometry.kernel), *noise.shape[2:]))
    sums = g.op("CumSum", g.stop_gradient(seen), g.constant(2, np.int64))
    whole = g.slice(sums, [2], [prod(geometry.kernel) - 1], [prod(geometry.kernel)])
    bound = g.mul(g.reshape(g.sub(1.0, noise), whole.shape), whole)
    reached = g.cast(g.op("GreaterOrEqual", sums, bound))
    first = g.op("ArgMax", reached, axis=2, keepdims=1)
    return g.reshape(g.op("GatherElements", seen, first, axis=2), noise.shape)


def _attrs(sides: Sequence[Side]) -> dict[str, Any]:
    return {
        "kernel_shape": [side.kernel for side in sides],
        "strides": [side.stride for side in sides],
        "pads": [side.pad for side in sides] + [side.end for side in sides],
    }
