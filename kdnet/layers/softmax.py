"""Softmax."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("Softmax", params="softmax_param")
class Softmax(Layer):
    """Exponentials that sum to one.

        y[n, c] = exp(x[n, c]) / Σ_k exp(x[n, k])

    Shapes:
        x  (N..., C, M...)  bottom 0; the class axis is ``axis``
        y  as x             top 0
    Parameters: axis (1); engine has no effect
    Gradient: from the op rules, y · (dy − Σ dy·y).
    Differs from Caffe: nothing.
    Faults: axis out of range.
    Source: BVLC/caffe softmax_layer.
    """

    def check(self, x: Tensor) -> None:
        """The axis exists."""
        self.axis(x, self.params.axis)

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.softmax(x, self.axis(x, self.params.axis))
