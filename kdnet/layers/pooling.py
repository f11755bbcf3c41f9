"""Pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.schema import kdnet_pb2 as pb


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

    def counted(self) -> list[int]:
        """For each window, its places in the input and its stated padding on both sides."""
        starts = [index * self.stride - self.pad for index in range(self.count)]
        return [min(start + self.kernel, self.size + self.pad) - start for start in starts]


@layer("Pooling", params="pooling_param", tops=(1, 2))
class Pooling(Layer):
    """Take the maximum or the average of each window.

        MAX: y[n, c, p] = max_k x[n, c, stride·p + k − pad]
        AVE: y[n, c, p] = Σ_k x[n, c, stride·p + k − pad] / (places of the window that lie in the
             input or its padding)

    Shapes:
        x     (N, C, H, W)  bottom 0
        y     (N, C, P, Q)  top 0; P = ⌈(H + 2·pad − kernel) / stride⌉ + 1, rounded down with
              FLOOR; less 1 if there is padding and the last window would begin behind the input
        mask  (N, C, P, Q)  top 1, MAX only: the maximum's index in its H·W plane
    Parameters: pool (MAX), AVE; kernel_size, or kernel_h and kernel_w (one of the two required
        unless global_pooling); stride, or stride_h and stride_w (1); pad, or pad_h and pad_w (0),
        less than the kernel; global_pooling (false): one window, the whole plane; round_mode
        (CEIL), FLOOR; engine changes nothing
    Gradient: from the op rules; a maximum held more than once passes it to the first place in
        row-major order.
    Differs from Caffe: a window that lies outside the input is refused; on CUDA, a mask shows the
        first maximum in column-major order.
    Faults: STOCHASTIC; a parameter missing, zero, or given in two ways; pad not less than the
        kernel; a kernel, stride or pad beside global_pooling; a window without input; a mask with
        AVE; a bottom without four axes.
    Source: BVLC/caffe pooling_layer.
    """

    def check(self, x: Tensor) -> None:
        """The method is built, the parameters agree, and every window meets the input."""
        self.require_shape(x.rank == 4, bottom=0, say=f"a bottom of 4 axes wanted, not {x.shape}")
        stochastic = self.params.pool == pb.PoolingParameter.STOCHASTIC
        self.require(
            not stochastic, at="pool", say="STOCHASTIC is not supported yet", help="use MAX or AVE"
        )
        if len(self.model.tops) > 1:
            is_max = self.params.pool == pb.PoolingParameter.MAX
            self.require(is_max, at="pool", say="only MAX has a mask as second top")
        self.sides(x)

    def sides(self, x: Tensor) -> tuple[Side, Side]:
        """The windows along height and width."""
        size = x.shape[2], x.shape[3]
        if self.params.global_pooling:
            self._check_global()
            return Side(size[0], size[0], 1, 0, 1), Side(size[1], size[1], 1, 0, 1)
        kernel = self._pair("kernel_size", "kernel", least=1)
        stride = self._pair("stride", "stride", least=1)
        pad = self._pair("pad", "pad", least=0)
        for name, inside, whole in zip(self._names("pad", "pad"), pad, kernel, strict=True):
            self.require(inside < whole, at=name, say=f"{inside} is not less than the kernel")
        each = zip(size, kernel, stride, pad, strict=True)
        height, width = (self._side(*numbers, clips=any(pad)) for numbers in each)
        return height, width

    def _check_global(self) -> None:
        for name, neutral in (("kernel_size", 0), ("stride", 1), ("pad", 0)):
            short = name.partition("_")[0]
            for field in (name, f"{short}_h", f"{short}_w"):
                value = getattr(self.params, field)
                alone = not self.params.HasField(field) or value == neutral
                self.require(alone, at=field, say="the window of global_pooling is the plane")

    def _names(self, name: str, short: str) -> tuple[str, str]:
        """The fields that give a number for height and width."""
        pair = (f"{short}_h", f"{short}_w")
        return pair if any(self.params.HasField(field) for field in pair) else (name, name)

    def _pair(self, name: str, short: str, *, least: int) -> tuple[int, int]:
        """A parameter for both axes, or its two fields ``short``_h and _w."""
        height, width = self._names(name, short)
        if height != width:
            twice = f"one of two ways to say the same; {name} is given too"
            self.require(not self.params.HasField(name), at=height, say=twice)
            both = all(self.params.HasField(field) for field in (height, width))
            self.require(both, at=height, say=f"give both {height} and {width}")
        values = getattr(self.params, height), getattr(self.params, width)
        for field, value in zip((height, width), values, strict=True):
            given = self.params.HasField(field) or value >= least
            say = f"must be at least {least}" if given else "must be given"
            self.require(value >= least, at=field, say=say)
        return values

    def _side(self, size: int, kernel: int, stride: int, pad: int, *, clips: bool) -> Side:
        """The windows along one axis; ``clips`` drops a last one that begins behind the input."""
        room = size + 2 * pad - kernel
        up = self.params.round_mode == pb.PoolingParameter.CEIL
        count = (-(-room // stride) if up else room // stride) + 1
        if clips and (count - 1) * stride >= size + pad:
            count -= 1
        last = (count - 1) * stride - pad
        say = (
            f"with kernel {kernel}, stride {stride} and pad {pad} there is a window without input"
        )
        self.require_shape(count > 0 and last < size, bottom=0, say=f"{say} on an axis of {size}")
        # Nothing changes beyond the padded input, but the op rules' work grows with both.
        whole = size + 2 * pad
        return Side(size, min(kernel, whole), min(stride, whole), pad, count)

    def emit(self, g: Emitter, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One pooling op whose end pads make Caffe's output size."""
        height, width = self.sides(x)
        attrs: dict[str, Any] = {
            "kernel_shape": [height.kernel, width.kernel],
            "strides": [height.stride, width.stride],
            "pads": [height.pad, width.pad, height.end, width.end],
        }
        if self.params.pool == pb.PoolingParameter.AVE:
            return self._average(g, x, attrs)
        if len(self.model.tops) == 1:
            return g.op("MaxPool", x, **attrs)
        y, places = g.multi("MaxPool", x, count=2, **attrs)
        in_plane = g.op("Mod", places, g.ints(height.size * width.size))
        return y, g.cast(in_plane)

    def _average(self, g: Emitter, x: Tensor, attrs: Mapping[str, Any]) -> Tensor:
        """The op counts the whole window; where fewer places count, a factor makes up for it."""
        if self.params.global_pooling:
            return g.reduce_mean(x, [2, 3], keepdims=True)
        y = g.op("AveragePool", x, count_include_pad=1, **attrs)
        height, width = self.sides(x)
        places = np.multiply.outer(height.counted(), width.counted())
        factor = height.kernel * width.kernel / places
        if np.all(factor == 1):
            return y
        return g.mul(y, g.constant(factor[np.newaxis, np.newaxis]))
