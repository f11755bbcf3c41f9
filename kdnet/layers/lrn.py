"""LRN."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.schema import kdnet_pb2 as pb


@layer("LRN", params="lrn_param")
class LRN(Layer):
    """Divide by a power of the mean square around, over channels or in the plane.

        ACROSS_CHANNELS: y = x · (k + α·m)^−β,  m = Σ x² / n over the n channels around
        WITHIN_CHANNEL:  y = x · (1 + α·m)^−β,  m = Σ x² / n² over the n × n places around

    What lies outside the input counts as zero.

    Shapes:
        x  (N, C, H, W)  bottom 0
        y  (N, C, H, W)  top 0
    Parameters: local_size n (5), odd; alpha α (1); beta β (0.75); norm_region (ACROSS_CHANNELS),
        WITHIN_CHANNEL; k (1), for ACROSS_CHANNELS only; engine changes nothing
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: an even local_size; a bottom without four axes.
    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3; BVLC/caffe lrn_layer.
    """

    def check(self, x: Tensor) -> None:
        """The window has a middle, and the bottom has channels and a plane."""
        size = self.params.local_size
        self.require(size % 2 == 1, at="local_size", say=f"{size} is not odd")
        self.require_shape(x.rank == 4, bottom=0, say=f"a bottom of 4 axes wanted, not {x.shape}")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """The mean square, then its power by exponential and logarithm.

        That is exact where the LRN op of ONNX Runtime's CPU is a few roundings off, and faster,
        as are these ops' gradients.
        """
        across = self.params.norm_region == pb.LRNParameter.ACROSS_CHANNELS
        squares = g.square(x)
        mean = self._over_channels(g, squares) if across else self._over_places(g, squares)
        base = g.add(g.mul(mean, self.params.alpha), self.params.k if across else 1.0)
        return g.mul(x, g.exp(g.mul(g.log(base), -self.params.beta)))

    def _over_channels(self, g: Emitter, squares: Tensor) -> Tensor:
        """As a 1 × 1 convolution with a band of ones: many times faster than pooling."""
        size = self.params.local_size
        channels = np.arange(squares.shape[1])
        near = np.abs(channels[:, np.newaxis] - channels) <= size // 2
        band = g.constant((near / size)[:, :, np.newaxis, np.newaxis])
        return g.op("Conv", squares, band)

    def _over_places(self, g: Emitter, squares: Tensor) -> Tensor:
        size = self.params.local_size
        return g.op(
            "AveragePool",
            squares,
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            count_include_pad=1,
        )
