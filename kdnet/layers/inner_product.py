"""InnerProduct."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer


@layer("InnerProduct", params="inner_product_param")
class InnerProduct(Layer):
    """Affine map of each flattened item.

        y[n, k] = Σ_d x[n, d] · w[k, d] + b[k]

    Shapes:
        x  (N..., D...)  bottom 0; axes from ``axis`` on are flattened to D
        w  (K, D)        weight 0; (D, K) with ``transpose``
        b  (K)           weight 1, unless ``bias_term`` is false
        y  (N..., K)     top 0
    Parameters: num_output K ≥ 1 (required); bias_term (true); axis (1); transpose (false)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: num_output missing; axis out of range.
    Source: BVLC/caffe inner_product_layer.
    """

    def check(self, x: Tensor) -> None:
        """K is given and the axis exists."""
        self.require(self.params.num_output > 0, at="num_output", say="must be positive")
        self.axis(x, self.params.axis)

    def weights(self, x: Tensor) -> list[Weight]:
        """Matrix and bias."""
        k, d = self.params.num_output, prod(x.shape[self.axis(x, self.params.axis) :])
        shape = (d, k) if self.params.transpose else (k, d)
        found = [Weight("weight", shape, self.params.weight_filler)]
        if self.params.bias_term:
            found.append(Weight("bias", (k,), self.params.bias_filler))
        return found

    def emit(self, g: Emitter, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """One Gemm over the flattened bottom."""
        axis = self.axis(x, self.params.axis)
        outer = x.shape[:axis]
        flat = g.reshape(x, (prod(outer), prod(x.shape[axis:])))
        y = g.gemm(flat, w, b, trans_b=not self.params.transpose)
        return g.reshape(y, (*outer, self.params.num_output))
