"""Pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.geometry import Pair, pair_of
from kdnet.schema import kdnet_pb2 as pb

MAX = pb.PoolingParameter.MAX
AVE = pb.PoolingParameter.AVE


@layer("Pooling", params="pooling_param")
class Pooling(Layer):
    """Take the maximum or the average of each window.

        MAX  y[p] = max_k x[stride·p + k − pad]
        AVE  y[p] = Σ_k x[stride·p + k − pad] / m[p], m[p] the places of the window inside H + pad

    Shapes:
        x  (N, C, H, W)    bottom 0
        y  (N, C, OH, OW)  top 0; OH = ⌈(H + 2·pad − KH)/stride⌉ + 1 (FLOOR: ⌊ ⌋ + 1), less the
                           last window where, with padding, it would begin outside H + pad
    Parameters: pool MAX | AVE; kernel_size or kernel_h and kernel_w (required unless
        global_pooling); pad (0); stride (1); global_pooling (false); round_mode (CEIL); engine is
        ignored
    Gradient: from the op rules; a maximum's goes to the first of equals in row-major order.
    Differs from Caffe: STOCHASTIC and the second top (the mask) are not there yet.
    Faults: no kernel size, pad not below the kernel, a kernel larger than its padded input.
    Source: BVLC/caffe pooling_layer.
    """

    def check(self, x: Tensor) -> None:
        """Sizes are there and fit."""
        self.require_shape(x.rank == 4, bottom=0, say=f"takes 4 axes (N, C, H, W), not {x.shape}")
        self.require(
            self.params.pool in (MAX, AVE), at="pool", say="STOCHASTIC is not supported yet"
        )
        (kernel, pad, _stride), size = self.window(x), x.shape[2:]
        for axis in (0, 1):
            self.require(
                pad[axis] < kernel[axis],
                at="pad",
                say=f"{pad[axis]} must be below the kernel's {kernel[axis]}",
            )
            self.require_shape(
                kernel[axis] <= size[axis] + 2 * pad[axis],
                bottom=0,
                say=f"a window of {kernel[axis]} does not fit a padded bottom of "
                f"{size[axis] + 2 * pad[axis]}, {x.shape}",
            )

    def window(self, x: Tensor) -> tuple[Pair, Pair, Pair]:
        """Kernel, pad and stride."""
        pad, stride = pair_of(self, "pad", 0), pair_of(self, "stride", 1)
        if not self.params.global_pooling:
            return pair_of(self, "kernel", None), pad, stride
        given = any(self.params.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w"))
        self.require(not given, at="kernel_size", say="goes not together with global_pooling")
        whole = pad == (0, 0) and stride == (1, 1)
        self.require(whole, at="global_pooling", say="wants pad 0 and stride 1")
        return (x.shape[2], x.shape[3]), pad, stride

    def out_sizes(self, x: Tensor) -> Pair:
        """Height and width of the top."""
        kernel, pad, stride = self.window(x)
        found = []
        for axis in (0, 1):
            size, k, p, s = x.shape[2 + axis], kernel[axis], pad[axis], stride[axis]
            ceil = self.params.round_mode == pb.PoolingParameter.CEIL
            out = (size + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
            if any(pad) and (out - 1) * s >= size + p:
                out -= 1
            found.append(out)
        return (found[0], found[1])

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One pooling op over a bottom padded so that windows end where Caffe's do."""
        kernel, pad, stride = self.window(x)
        out = self.out_sizes(x)
        reach = [(out[axis] - 1) * stride[axis] + kernel[axis] for axis in (0, 1)]
        end = [reach[axis] - x.shape[2 + axis] - pad[axis] for axis in (0, 1)]
        if any(count < 0 for count in end):
            # The last places of the input belong to no window.
            kept = [min(x.shape[2 + axis], reach[axis] - pad[axis]) for axis in (0, 1)]
            x = g.slice(x, [2, 3], [0, 0], kept)
            end = [max(0, count) for count in end]
        attrs: dict[str, Any] = {
            "kernel_shape": list(kernel),
            "strides": list(stride),
            "pads": [*pad, *end],
        }
        if self.params.pool == MAX:
            return g.op("MaxPool", x, **attrs)
        y = g.op("AveragePool", x, count_include_pad=1, **attrs)
        counts = self._clipped_counts(x, kernel, pad, stride, out)
        area = kernel[0] * kernel[1]
        return y if (counts == area).all() else g.mul(y, g.constant(area / counts))

    @staticmethod
    def _clipped_counts(
        x: Tensor, kernel: Pair, pad: Pair, stride: Pair, out: Pair
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """(1, 1, OH, OW): the places of each window, cut at the padded input's end."""
        sides = []
        for axis in (0, 1):
            start = np.arange(out[axis]) * stride[axis] - pad[axis]
            sides.append(np.minimum(start + kernel[axis], x.shape[2 + axis] + pad[axis]) - start)
        return np.outer(sides[0], sides[1]).astype(np.float64)[np.newaxis, np.newaxis]
