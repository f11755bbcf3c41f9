"""LRN."""

from __future__ import annotations

from math import prod

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.schema import kdnet_pb2 as pb

ACROSS = pb.LRNParameter.ACROSS_CHANNELS


@layer("LRN", params="lrn_param")
class LRN(Layer):
    """Divide by a power of the neighbours' mean square.

        ACROSS_CHANNELS  y = x · (k + α/n · Σ_window x²)^−β, n channels around each
        WITHIN_CHANNEL   y = x · (1 + α · mean_window x²)^−β, n×n places, pads counted

    Shapes:
        x  (N, C, H, W)  bottom 0
        y  (N, C, H, W)  top 0
    Parameters: local_size n, odd (5); alpha (1); beta (0.75); norm_region; k (1; ACROSS only)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: an even local_size.
    Source: Krizhevsky et al. 2012, section 3.3; behaviour as BVLC/caffe lrn_layer.
    """

    def check(self, x: Tensor) -> None:
        """An odd window, four axes."""
        self.require(self.params.local_size % 2 == 1, at="local_size", say="must be odd")
        self.require_shape(x.rank == 4, bottom=0, say=f"takes 4 axes (N, C, H, W), not {x.shape}")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """Mean squares by pooling, over channels or over places."""
        p = self.params
        across = p.norm_region == ACROSS
        mean = self._over_channels(g, x) if across else self._over_places(g, g.square(x))
        scale = g.add(g.mul(mean, p.alpha), p.k if across else 1.0)
        return g.mul(x, g.pow(scale, -p.beta))

    def _over_channels(self, g: Emitter, x: Tensor) -> Tensor:
        """Σ x² / n over neighbouring channels: a 1×1 convolution with a band matrix."""
        n, c = self.params.local_size, x.shape[1]
        band = np.abs(np.subtract.outer(np.arange(c), np.arange(c))) <= n // 2
        flat = g.reshape(g.square(x), (x.shape[0], c, prod(x.shape[2:])))
        return g.reshape(g.matmul(g.constant(band / n), flat), x.shape)

    def _over_places(self, g: Emitter, square: Tensor) -> Tensor:
        n = self.params.local_size
        return g.op(
            "AveragePool",
            square,
            kernel_shape=[n, n],
            pads=[n // 2] * 4,
            count_include_pad=1,
        )
