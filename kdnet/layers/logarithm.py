"""Log."""

from __future__ import annotations

from math import log

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("Log", params="log_param")
class Log(Layer):
    """A logarithm of an affine map.

        y = log_base(shift + scale · x)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: base (-1), which means e; scale (1); shift (0)
    Gradient: from the op rules, scale / ((shift + scale · x) · ln base).
    Differs from Caffe: nothing.
    Faults: a base that is neither -1 nor positive, or is 1.
    Source: BVLC/caffe log_layer.
    """

    def check(self, _x: Tensor) -> None:
        """The base has logarithms."""
        base = self.params.base
        self.require(
            base == -1 or (0 < base < float("inf") and base != 1),
            at="base",
            say=f"must be positive and not 1, or -1 for e, not {base:g}",
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """The natural logarithm, divided by that of the base."""
        inside = g.mul(x, self.params.scale)
        if self.params.shift:
            inside = g.add(inside, self.params.shift)
        y = g.op("Log", inside)
        return y if self.params.base == -1 else g.mul(y, 1 / log(self.params.base))
