"""Normalize."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.schema import kdnet_pb2 as pb

SMALLEST = float(np.finfo(np.float32).tiny)


@layer("Normalize", params="norm_param")
class Normalize(Layer):
    """Divide by the Euclidean norm, and scale.

        y[n, c, i] = s[c] · x[n, c, i] / √(Σ_k x[n, k, i]² + eps)

    or, with ``across_spatial``, with one sum for each item, over channels and places.

    Shapes:
        x  (N, C, ...)  bottom 0
        s  (C)          weight 0; () with ``channel_shared``
        y  as x         top 0
    Parameters: across_spatial (true); channel_shared (true): one scale for all channels;
        scale_filler (ones); eps (1e-10), at least 2⁻¹²⁶ counts
    Gradient: from the op rules, through the norm too.
    Differs from Caffe: nothing; the layer is of SSD's fork. The fork divides the gradient of a
        scale by that scale, so it is none at 0; here it is exact.
    Faults: a bottom without channels; eps below 0.
    Source: weiliu89/caffe normalize_layer; Liu et al. 2016 (SSD).
    """

    def check(self, x: Tensor) -> None:
        """There are channels, and nothing is taken from the sum."""
        say = f"a bottom of shape {x.shape} has no channels on axis 1"
        self.require_shape(x.rank > 1, bottom=0, say=say)
        eps = self.params.eps
        self.require(0 <= eps < float("inf"), at="eps", say=f"must be 0 or more, not {eps:g}")

    def weights(self, x: Tensor) -> list[Weight]:
        """The scale."""
        ones = pb.FillerParameter(type="constant", value=1)
        filler = self.params.scale_filler if self.params.HasField("scale_filler") else ones
        return [Weight("scale", () if self.params.channel_shared else x.shape[1:2], filler)]

    def emit(self, g: Emitter, x: Tensor, scale: Tensor) -> Tensor:
        """The sum of squares, its root, the quotient and the product."""
        axes = range(1, x.rank if self.params.across_spatial else 2)
        squares = g.reduce_sum(g.square(x), axes, keepdims=True)
        norm = g.sqrt(g.add(squares, max(self.params.eps, SMALLEST)))
        spread = g.reshape(scale, (scale.size, *[1] * (x.rank - 2)) if scale.rank else ())
        return g.mul(g.div(x, norm), spread)
