"""What a loss is divided by: LossParameter's normalization and ignore_label."""

from __future__ import annotations

from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer
from kdnet.layers.kept import left_out, per_item
from kdnet.schema import kdnet_pb2 as pb

Mode = pb.LossParameter


class LossLayer(Layer):
    """A layer whose first top is a term of the objective, with weight 1 unless stated.

    ``default_normalization`` holds where the prototxt gives neither normalization nor normalize.
    """

    is_loss = True
    default_normalization: ClassVar[int] = Mode.VALID

    @property
    def ignore(self) -> int | None:
        """The label that adds nothing, or None."""
        given = self.model.message.loss_param
        return given.ignore_label if given.HasField("ignore_label") else None

    @property
    def normalization(self) -> int:
        """The mode; the deprecated ``normalize`` counts only where normalization is not given."""
        given = self.model.message.loss_param
        if given.HasField("normalization"):
            return given.normalization
        if given.HasField("normalize"):
            return Mode.VALID if given.normalize else Mode.BATCH_SIZE
        return self.default_normalization

    def normalized(
        self,
        g: Emitter,
        total: Tensor,
        *,
        positions: int,
        items: int,
        ignored: Tensor | None = None,
        factor: float = 1.0,
    ) -> Tensor:
        """``factor · total`` over the divisor, which is at least 1.

        Args:
            g: the graph.
            total: the sum over all positions that count, a scalar.
            positions: how many predictions there are (FULL, and VALID where none is ignored).
            items: how many items the batch has (BATCH_SIZE).
            ignored: bool, true where a prediction is left out.
            factor: a constant.
        """
        mode = self.normalization
        ignored = left_out(g, ignored, self.kept)
        if mode == Mode.VALID and ignored is not None:
            counted = g.sum_all(g.where(ignored, 0.0, 1.0))
            return g.div(g.mul(total, factor), g.maximum(counted, 1.0))
        divisors: dict[int, int] = {
            Mode.FULL: positions,
            Mode.VALID: positions,
            Mode.BATCH_SIZE: items,
        }
        if mode not in divisors:
            return g.mul(total, factor)
        return per_item(g, total, factor, max(divisors[mode], 1), self.kept)
