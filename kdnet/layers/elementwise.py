"""AbsVal, Exp and Log: functions of each element alone."""

from __future__ import annotations

from math import isclose, log

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer

NATURAL = -1.0


@layer("AbsVal")
class AbsVal(Layer):
    """The absolute value.

        y = |x|

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: none
    Gradient: from the op rules, the sign of x; 0 at 0.
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe absval_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.abs(x)


class OfBase(Layer):
    """A layer with scale and shift of its bottom, and a base that is e where it is -1."""

    def check(self, _x: Tensor) -> None:
        """The base is a positive number."""
        base = self.params.base
        say = f"must be positive, or -1 for e, not {base:g}"
        self.require(base == NATURAL or base > 0, at="base", say=say)

    @property
    def log_base(self) -> float:
        """The natural logarithm of the base."""
        base: float = self.params.base
        return 1.0 if base == NATURAL else log(base)

    def affine(self, g: Emitter, x: Tensor) -> Tensor:
        """``shift + scale · x``."""
        scaled = g.mul(x, self.params.scale)
        return g.add(scaled, self.params.shift) if self.params.shift else scaled


@layer("Exp", params="exp_param")
class Exp(OfBase):
    """The exponential of an affine map.

        y = base^(shift + scale · x)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: base > 0 (-1, which is e); scale (1); shift (0)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: base 0, or below 0 and not -1.
    Source: BVLC/caffe exp_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """The natural exponential of a multiple."""
        return g.exp(g.mul(self.affine(g, x), self.log_base))


@layer("Log", params="log_param")
class Log(OfBase):
    """The logarithm of an affine map.

        y = log_base(shift + scale · x)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: base > 0, not 1 (-1, which is e); scale (1); shift (0)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: base 0 or 1, or below 0 and not -1.
    Source: BVLC/caffe log_layer.
    """

    def check(self, x: Tensor) -> None:
        """The base is one that a logarithm has."""
        super().check(x)
        say = "no number is a power of 1 but 1"
        self.require(not isclose(self.params.base, 1.0), at="base", say=say)

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """A multiple of the natural logarithm."""
        return g.mul(g.log(self.affine(g, x)), 1.0 / self.log_base)
