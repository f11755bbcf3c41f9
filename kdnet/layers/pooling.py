"""Pooling."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.pools import (
    Side,
    average_pool,
    max_pool,
    max_pool_with_places,
    mean_by_value,
    pick_by_value,
    side,
)
from kdnet.schema import kdnet_pb2 as pb

Method = pb.PoolingParameter
# ONNX Runtime has kernels for these.
RANKS = range(3, 6)
# A number once for all axes, in two fields for two of them, or once for each.
WAYS = {
    "kernel": ("kernel_size", "kernel_shape"),
    "stride": ("stride", "strides"),
    "pad": ("pad", "pads"),
}


@layer("Pooling", params="pooling_param", tops=(1, 2))
class Pooling(Layer):
    """Take the maximum, the average or a random one of each window.

        MAX: y[n, c, p] = max_k x[n, c, stride·p + k − pad]
        AVE: y[n, c, p] = Σ_k x[n, c, stride·p + k − pad] / (places of the window that lie in the
             input or its padding)
        STOCHASTIC, TRAIN: y = x_k with probability x_k / Σ_j x_j, over the window's places
        STOCHASTIC, TEST:  y = Σ_k x_k² / Σ_k x_k, the expectation of that; 0 where Σ_k x_k ≤ 0

    Shapes:
        x     (N, C, H, W)  bottom 0; there may also be one or three spatial axes
        y     (N, C, P, Q)  top 0; P = ⌈(H + 2·pad − kernel) / stride⌉ + 1, rounded down with
              FLOOR; less 1 if there is padding and the last window would begin behind the input
        mask  (N, C, P, Q)  top 1, MAX only: the maximum's index in its H·W plane
        u     as y          noise of STOCHASTIC in TRAIN: of the partial sums of a window, in
              row-major order, the first that reaches (1 − u)·Σ_k x_k is its choice
    Parameters: pool (MAX), AVE, STOCHASTIC; kernel_size, or kernel_h and kernel_w (one of the two
        required unless global_pooling); stride, or stride_h and stride_w (1); pad, or pad_h and
        pad_w (0), less than the kernel; kernel_shape, strides and pads are kdnet's own, a number
        for each spatial axis; global_pooling (false): one window, the whole plane; round_mode
        (CEIL), FLOOR, or ceil_mode (true) as forks write it; engine changes nothing
    Gradient: from the op rules; a maximum held more than once passes it to the first place in
        row-major order, and a random choice is the only place of its window that has one.
    Differs from Caffe: a window that lies outside the input is refused; there may be one or three
        spatial axes; on CUDA, a mask shows the first maximum in column-major order. STOCHASTIC
        runs on the CPU as well, repeats exactly, and has in TEST the gradient of its formula;
        where partial sums fall (negative values) and none reaches its bound, it takes the first
        place, where Caffe leaves the top as it was.
    Faults: a parameter missing, zero, or given in two ways; pad not less than the kernel, or with
        STOCHASTIC; a kernel, stride or pad beside global_pooling; a window without input; a mask
        with AVE or STOCHASTIC; a bottom without three to five axes.
    Source: BVLC/caffe pooling_layer; Zeiler, Fergus 2013 (STOCHASTIC).
    """

    def check(self, x: Tensor) -> None:
        """The parameters agree, and every window meets the input."""
        say = f"a bottom of 4 axes wanted, or of 3 or 5, not {x.shape}"
        self.require_shape(x.rank in RANKS, bottom=0, say=say)
        if len(self.model.tops) > 1:
            is_max = self.params.pool == Method.MAX
            self.require(is_max, at="pool", say="only MAX has a mask as second top")
        sides = self.sides(x)
        if self.params.pool == Method.STOCHASTIC:
            padded = any(one.pad for one in sides)
            say = "STOCHASTIC draws from places of the input and takes no pad"
            self.require(not padded, at="pool", say=say, help="put pad: 0")

    def sides(self, x: Tensor) -> tuple[Side, ...]:
        """The windows along each spatial axis."""
        sizes = x.shape[2:]
        if self.params.global_pooling:
            self._check_global()
            return tuple(Side(size, size, 1, 0, 1) for size in sizes)
        kernel = self._each("kernel", len(sizes), least=1)
        stride = self._each("stride", len(sizes), least=1)
        pad = self._each("pad", len(sizes), least=0)
        for name, inside, whole in zip(self._names("pad", len(sizes)), pad, kernel, strict=True):
            self.require(inside < whole, at=name, say=f"{inside} is not less than the kernel")
        up = self._rounds_up()
        found = []
        for size, *numbers in zip(sizes, kernel, stride, pad, strict=True):
            one = side(size, *numbers, ceil=up, clips=any(pad))
            k, s, p = numbers
            say = f"with kernel {k}, stride {s} and pad {p} there is a window without input"
            self.require_shape(one.meets, bottom=0, say=f"{say} on an axis of {size}")
            found.append(one)
        return tuple(found)

    def _rounds_up(self) -> bool:
        modes = [name for name in ("round_mode", "ceil_mode") if self.params.HasField(name)]
        self.require(len(modes) < 2, at="ceil_mode", say="round_mode says the same")
        return bool(self.params.ceil_mode) and self.params.round_mode == Method.CEIL

    def _check_global(self) -> None:
        for short, (name, each) in WAYS.items():
            neutral = {"kernel": 0, "stride": 1, "pad": 0}[short]
            say = "the window of global_pooling is the plane"
            for field in (name, f"{short}_h", f"{short}_w"):
                value = getattr(self.params, field)
                alone = not self.params.HasField(field) or value == neutral
                self.require(alone, at=field, say=say)
            self.require(not getattr(self.params, each), at=each, say=say)

    def _names(self, short: str, count: int) -> tuple[str, ...]:
        """The fields that give a number for each axis."""
        name, each = WAYS[short]
        if getattr(self.params, each):
            return tuple(f"{each}.{index}" for index in range(count))
        pair = (f"{short}_h", f"{short}_w")
        return pair if any(self.params.HasField(field) for field in pair) else (name,) * count

    def _each(self, short: str, count: int, *, least: int) -> tuple[int, ...]:
        """A parameter for all axes, its two fields ``short``_h and _w, or one for each axis."""
        name, each = WAYS[short]
        given = list(getattr(self.params, each))
        names = self._names(short, count)
        twice = f"one of two ways to say the same; {name} is given too"
        if given:
            say = f"given {len(given)} times; once for each of {count} spatial axes"
            self.require(len(given) == count, at=each, say=say)
            others = (name, f"{short}_h", f"{short}_w")
            other = next((field for field in others if self.params.HasField(field)), "")
            self.require(not other, at=each, say=twice.replace(name, other))
        elif names[0] != name:
            first = next(field for field in names if self.params.HasField(field))
            self.require(not self.params.HasField(name), at=first, say=twice)
            say = f"of 2 spatial axes, but the bottom has {count}"
            self.require(count == 2, at=first, say=say)
            both = all(self.params.HasField(field) for field in names)
            self.require(both, at=first, say=f"give both {names[0]} and {names[1]}")
        values = given or [getattr(self.params, field) for field in names]
        for field, value in zip(names, values, strict=True):
            known = bool(given) or self.params.HasField(field) or value >= least
            say = f"must be at least {least}" if known else "must be given"
            self.require(value >= least, at=field, say=say)
        return tuple(values)

    def emit(self, g: Emitter, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """By the method; end pads make Caffe's output size."""
        sides = self.sides(x)
        if self.params.pool == Method.STOCHASTIC:
            if not self.train:
                return mean_by_value(g, x, sides)
            counts = [one.count for one in sides]
            return pick_by_value(g, x, sides, self.noise(g, (*x.shape[:2], *counts)))
        if self.params.pool == Method.MAX:
            masked = len(self.model.tops) > 1
            return max_pool_with_places(g, x, sides) if masked else max_pool(g, x, sides)
        if self.params.global_pooling:
            return g.reduce_mean(x, range(2, x.rank), keepdims=True)
        return average_pool(g, x, sides)
