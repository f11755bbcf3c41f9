"""MVN."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("MVN", params="mvn_param")
class MVN(Layer):
    """Give every channel of every item mean 0 and variance 1.

        y = (x − μ) / (√v + eps)

    with the mean μ and the biased variance v over the space of each channel, or of each item.

    Shapes:
        x  (N, C, ...)  bottom 0
        y  as x         top 0
    Parameters: normalize_variance (true): false subtracts the mean only; across_channels (false);
        eps (1e-9)
    Gradient: through mean and variance too, by the rule Standardize, which takes √v for √v + eps
        in the path through the variance, as Caffe does: it is exact for a small eps, and finite
        where all values are equal.
    Differs from Caffe: nothing.
    Faults: a bottom without a batch axis.
    Source: BVLC/caffe mvn_layer.
    """

    def check(self, x: Tensor) -> None:
        """There are items."""
        self.require_shape(x.rank > 0, bottom=0, say="a single number has no batch axis")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """Two means and a product."""
        axes = range(1 if self.params.across_channels else 2, x.rank)
        if not self.params.normalize_variance:
            return g.sub(x, g.reduce_mean(x, axes, keepdims=True))
        centred = g.sub(x, g.reduce_mean(g.stop_gradient(x), axes, keepdims=True))
        squares = g.square(g.stop_gradient(centred))
        deviation = g.sqrt(g.reduce_mean(squares, axes, keepdims=True))
        inverse = g.op("Reciprocal", g.add(deviation, self.params.eps))
        return g.op("Mul", centred, inverse, rule="Standardize")
