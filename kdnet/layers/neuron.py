"""Neuron layers: each element of the top from the same element of the bottom."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("ReLU", params="relu_param")
class ReLU(Layer):
    """Cut off, or weaken, what is below zero.

        y = max(x, 0) + negative_slope · min(x, 0)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: negative_slope (0); engine has no effect
    Gradient: from the op rules; negative_slope at 0, as in Caffe.
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe relu_layer; Nair, Hinton 2010.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        slope = self.params.negative_slope
        return g.op("LeakyRelu", x, alpha=slope) if slope else g.relu(x)


@layer("Sigmoid", params="sigmoid_param")
class Sigmoid(Layer):
    """The logistic function.

        y = 1 / (1 + exp(−x))

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: none; engine has no effect
    Gradient: from the op rules, y · (1 − y).
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe sigmoid_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.sigmoid(x)


@layer("TanH", params="tanh_param")
class TanH(Layer):
    """The hyperbolic tangent.

        y = tanh(x)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: none; engine has no effect
    Gradient: from the op rules, 1 − y².
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe tanh_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.tanh(x)


@layer("Power", params="power_param")
class Power(Layer):
    """A power of an affine map.

        y = (shift + scale · x)^power

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: power (1); scale (1); shift (0)
    Gradient: from the op rules; exactly 0 where power or scale is 0.
    Differs from Caffe: nothing.
    Faults: power or scale is 0 and shift^power is not finite.
    Source: BVLC/caffe power_layer.
    """

    def _constant(self) -> float | None:
        """The value of every element where it does not depend on x."""
        power, scale = self.params.power, self.params.scale
        if power * scale != 0:
            return None
        if power == 0:
            return 1.0
        with np.errstate(all="ignore"):
            return float(np.power(np.float64(self.params.shift), power))

    def check(self, _x: Tensor) -> None:
        """A constant top is a number."""
        value = self._constant()
        self.require(
            value is None or np.isfinite(value),
            at="power",
            say=f"with scale 0 the top is {self.params.shift:g} to the power of "
            f"{self.params.power:g}, which is no finite number",
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """The fewest nodes for the given numbers."""
        constant = self._constant()
        if constant is not None:
            return g.expand(g.constant(constant), x.shape)
        base = g.mul(x, self.params.scale)
        if self.params.shift:
            base = g.add(base, self.params.shift)
        return _raised(g, base, self.params.power)


def _raised(g: Emitter, base: Tensor, power: float) -> Tensor:
    if power == 1:
        return base
    if power == 2:
        return g.square(base)
    named = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(power)
    return g.op(named, base) if named else g.pow(base, power)


@layer("Dropout", params="dropout_param")
class Dropout(Layer):
    """Zero values at random in TRAIN, and scale the others up; do nothing in TEST.

        TRAIN: y = x · [u > r] / (1 − r),  u uniform in [0, 1)
        TEST:  y = x

    Shapes:
        x  any   bottom 0
        u  as x  noise, drawn anew for each micro-step
        y  as x  top 0
    Parameters: dropout_ratio r (0.5), in [0, 1)
    Gradient: from the op rules, through the values that were kept.
    Differs from Caffe: the mask is an input of the step, so runs repeat exactly on any device.
    Faults: dropout_ratio outside [0, 1).
    Source: BVLC/caffe dropout_layer; Srivastava et al. 2014.
    """

    def check(self, _x: Tensor) -> None:
        """The ratio is a probability below 1."""
        ratio = self.params.dropout_ratio
        self.require(0 <= ratio < 1, at="dropout_ratio", say=f"must be in [0, 1), not {ratio:g}")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One product with the mask."""
        ratio = self.params.dropout_ratio
        if not self.train or ratio == 0:
            return x
        kept = g.greater(self.noise(g, x.shape), ratio)
        return g.mul(x, g.where(kept, 1.0 / (1.0 - ratio), 0.0))
