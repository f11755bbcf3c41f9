"""Scale and Bias: a blob that covers some axes, broadcast over the others."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.schema import kdnet_pb2 as pb


class Broadcast(Layer):
    """A layer with a second operand, a bottom or a weight, on the bottom's axes from ``axis``."""

    def check(self, x: Tensor, operand: Tensor | None = None) -> None:
        """The operand's axes are among the bottom's and agree with them."""
        if operand is None:
            self._check_axes(x)
            return
        start = self.start(x, operand)
        covered = x.shape[start : start + operand.rank]
        self.require_shape(
            covered == operand.shape,
            bottom=1,
            say=f"shape {operand.shape} from axis {start} of a bottom of shape {x.shape}",
            help=f"axes {start} to {start + operand.rank - 1} of both must agree",
        )

    def _check_axes(self, x: Tensor) -> None:
        start, count = self.axis(x, self.params.axis), self.params.num_axes
        self.require(count >= -1, at="num_axes", say=f"must be -1 or more, not {count}")
        self.require(
            start + max(count, 0) <= x.rank,
            at="num_axes",
            say=f"{count} from axis {start} on go past the bottom's shape {x.shape}",
        )

    def start(self, x: Tensor, operand: Tensor | None) -> int:
        """The first axis that the operand covers."""
        if operand is not None and operand.rank == 0:
            return 0
        return self.axis(x, self.params.axis)

    def covered(self, x: Tensor, operand: Tensor | None) -> tuple[int, ...]:
        """The operand's shape."""
        if operand is not None:
            return operand.shape
        start, count = self.start(x, None), self.params.num_axes
        return x.shape[start:] if count == -1 else x.shape[start : start + count]

    def spread(self, g: Emitter, operand: Tensor, x: Tensor, start: int) -> Tensor:
        """The operand with the axes behind it that broadcasting needs."""
        after = max(x.rank - start - operand.rank, 0)
        return g.reshape(operand, (*operand.shape, *[1] * after))


@layer("Scale", params="scale_param", bottoms=(1, 2))
class Scale(Broadcast):
    """Multiply by a factor on some axes, and add a bias where asked.

        y[n, c, ...] = x[n, c, ...] · s[c] + b[c]

    Shapes:
        x  (N, C, ...)  bottom 0
        s  (C)          bottom 1, or weight 0 where there is one bottom: ``num_axes`` axes of x
                        from ``axis`` on
        b  as s         the last weight, where ``bias_term`` is true
        y  as x         top 0
    Parameters: axis (1); num_axes (1), -1 for all from axis on, 0 for one number; filler (ones);
        bias_term (false); bias_filler (zeros). A second bottom brings its own number of axes.
    Gradient: from the op rules, to both operands and the bias.
    Differs from Caffe: nothing.
    Faults: axis or num_axes out of range; a second bottom whose shape does not fit.
    Source: BVLC/caffe scale_layer.
    """

    def weights(self, x: Tensor, factor: Tensor | None = None) -> list[Weight]:
        """Factor and bias, as far as they are weights."""
        shape = self.covered(x, factor)
        ones = pb.FillerParameter(type="constant", value=1.0)
        filler = self.params.filler if self.params.HasField("filler") else ones
        found = [] if factor is not None else [Weight("scale", shape, filler)]
        if self.params.bias_term:
            found.append(Weight("bias", shape, self.params.bias_filler))
        return found

    def emit(self, g: Emitter, x: Tensor, factor: Tensor, bias: Tensor | None = None) -> Tensor:
        """One product, and one sum where there is a bias."""
        second = factor if len(self.model.bottoms) > 1 else None
        start = self.start(x, second)
        y = g.mul(x, self.spread(g, factor, x, start))
        return y if bias is None else g.add(y, self.spread(g, bias, x, start))


@layer("Bias", params="bias_param", bottoms=(1, 2))
class Bias(Broadcast):
    """Add a bias on some axes.

        y[n, c, ...] = x[n, c, ...] + b[c]

    Shapes:
        x  (N, C, ...)  bottom 0
        b  (C)          bottom 1, or weight 0 where there is one bottom: ``num_axes`` axes of x
                        from ``axis`` on
        y  as x         top 0
    Parameters: axis (1); num_axes (1), -1 for all from axis on, 0 for one number;
        filler (zeros). A second bottom brings its own number of axes.
    Gradient: from the op rules, to both operands.
    Differs from Caffe: nothing.
    Faults: axis or num_axes out of range; a second bottom whose shape does not fit.
    Source: BVLC/caffe bias_layer.
    """

    def weights(self, x: Tensor, bias: Tensor | None = None) -> list[Weight]:
        """The bias, where it is a weight."""
        if bias is not None:
            return []
        return [Weight("bias", self.covered(x, None), self.params.filler)]

    def emit(self, g: Emitter, x: Tensor, bias: Tensor) -> Tensor:
        """One sum."""
        second = bias if len(self.model.bottoms) > 1 else None
        return g.add(x, self.spread(g, bias, x, self.start(x, second)))
