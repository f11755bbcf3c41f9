"""ELU, PReLU, Swish, BNLL, Threshold and Clip: neuron layers beyond the common ones."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.schema import kdnet_pb2 as pb


@layer("ELU", params="elu_param")
class ELU(Layer):
    """Let what is below zero saturate.

        y = x                     for x > 0
        y = alpha · (exp(x) − 1)  otherwise

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: alpha (1)
    Gradient: from the op rules; alpha at 0, as in Caffe.
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe elu_layer; Clevert et al. 2016.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.op("Elu", x, alpha=self.params.alpha)


@layer("PReLU", params="prelu_param")
class PReLU(Layer):
    """Weaken what is below zero by a slope that is learnt.

        y[n, c] = max(x[n, c], 0) + w[c] · min(x[n, c], 0)

    Shapes:
        x  (N, C, ...)  bottom 0
        w  (C)          weight 0; () with ``channel_shared``
        y  as x         top 0
    Parameters: filler (constant, 0.25); channel_shared (false): one slope for all channels
    Gradient: from the op rules; the slope at 0, as in Caffe.
    Differs from Caffe: nothing.
    Faults: a bottom without a channel axis.
    Source: BVLC/caffe prelu_layer; He et al. 2015.
    """

    def check(self, x: Tensor) -> None:
        """There are channels."""
        say = f"a bottom of shape {x.shape} has no channels on axis 1"
        self.require_shape(x.rank > 1, bottom=0, say=say)

    def weights(self, x: Tensor) -> list[Weight]:
        """The slopes."""
        default = pb.FillerParameter(type="constant", value=0.25)
        filler = self.params.filler if self.params.HasField("filler") else default
        return [Weight("weight", () if self.params.channel_shared else x.shape[1:2], filler)]

    def emit(self, g: Emitter, x: Tensor, w: Tensor) -> Tensor:
        """One node."""
        spread = w if w.rank == 0 else g.reshape(w, (w.size, *[1] * (x.rank - 2)))
        return g.op("PRelu", x, spread)


@layer("Swish", params="swish_param")
class Swish(Layer):
    """The bottom times its own logistic function.

        y = x / (1 + exp(−beta · x))

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: beta (1)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe swish_layer; Ramachandran et al. 2017.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """Two or three nodes."""
        return g.mul(x, g.sigmoid(g.mul(x, self.params.beta)))


@layer("BNLL")
class BNLL(Layer):
    """The binomial normal log likelihood, a smooth ReLU.

        y = ln(1 + exp(x))

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: none
    Gradient: from the op rules, 1 / (1 + exp(−x)).
    Differs from Caffe: the gradient does not stop growing at x = 50, where it is 1 to the
        rounding.
    Faults: none.
    Source: BVLC/caffe bnll_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        return g.op("Softplus", x)


@layer("Threshold", params="threshold_param")
class Threshold(Layer):
    """Say which elements are above a threshold.

        y = 1 for x > threshold, else 0

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: threshold (0)
    Gradient: none: what lies before the layer is not trained through it.
    Differs from Caffe: a net that would have to be trained through it compiles; Caffe stops.
    Faults: none.
    Source: BVLC/caffe threshold_layer.
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """A comparison."""
        return g.cast(g.greater(x, self.params.threshold))


@layer("Clip", params="clip_param")
class Clip(Layer):
    """Keep elements between two bounds.

        y = min(max(x, min), max)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: min, max (required)
    Gradient: from the op rules: the top's where x lies between the bounds or on one, else 0.
    Differs from Caffe: nothing.
    Faults: a bound missing; min above max.
    Source: BVLC/caffe clip_layer.
    """

    def check(self, _x: Tensor) -> None:
        """Both bounds are given, in order."""
        for name in ("min", "max"):
            self.require(self.params.HasField(name), at=name, say="must be given")
        low, high = self.params.min, self.params.max
        self.require(low <= high, at="min", say=f"{low:g} is above max, {high:g}")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node."""
        low, high = g.like(self.params.min, x), g.like(self.params.max, x)
        return g.op("Clip", x, low, high)
