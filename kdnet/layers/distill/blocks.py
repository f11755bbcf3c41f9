"""What the heavier feature losses are built from: connectors, convolutions, enlarged maps."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.batch_norm import standardized
from kdnet.layers.distill.features import BATCH_NORM_EPS, FeatureLoss, Projector
from kdnet.layers.trace import Trace
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb


class ConnectorLoss(FeatureLoss):
    """A feature loss whose projector is batch normalised unless the prototxt says otherwise.

    With ``always_projects`` it is there, unless the prototxt gives a type, even where the channels
    agree. The loss vanishes when training ends, so no running statistics are kept.
    """

    always_projects = False

    def __init__(self, model: LayerModel, trace: Trace) -> None:
        super().__init__(model, trace)
        given = self.params.projector
        default = Projector(batch_norm=True, bias_term=False)
        default.weight_filler.type = "msra"
        default.weight_filler.variance_norm = pb.FillerParameter.FAN_OUT
        if given.HasField("weight_filler"):
            default.ClearField("weight_filler")
        default.MergeFrom(given)
        # A copy, since the message is that of the net.
        self.params = type(self.params).FromString(self.params.SerializeToString())
        self.params.projector.CopyFrom(default)

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """The features can be matched."""
        if self.always_projects and not self.params.projector.HasField("type"):
            vectors = 2 in (student.rank, teacher.rank)
            kind = Projector.INNER_PRODUCT if vectors else Projector.CONVOLUTION
            self.params.projector.type = kind
        super().check(student, teacher)


def constant(value: float) -> pb.FillerParameter:
    """A filler of one value."""
    return pb.FillerParameter(type="constant", value=value)


def within_fan(shape: tuple[int, ...]) -> pb.FillerParameter:
    """The uniform filler within 1/√(inputs of a unit), for a weight of ``shape``."""
    bound = 1 / sqrt(prod(shape[1:]))
    return pb.FillerParameter(type="uniform", min=-bound, max=bound)


def batch_normalised(g: Emitter, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Maps by the batch's statistics, then scaled and shifted."""
    y = standardized(g, x, BATCH_NORM_EPS)[0]
    spread = (x.shape[1], 1, 1)
    return g.add(g.mul(y, g.reshape(scale, spread)), g.reshape(shift, spread))


def convolved(g: Emitter, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution with an odd kernel, that keeps the size of maps."""
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return g.op("Conv", *inputs, pads=[weight.shape[2] // 2] * 4)


def enlarged(g: Emitter, x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps of another size: place i of O is that of ⌊i·H/O⌋.

    A product with a constant matrix on each axis, whose gradient is a product too and adds up in
    the same order on every device.
    """
    rows, columns = (_nearest(*pair) for pair in zip(x.shape[2:], size, strict=True))
    if len(columns) != x.shape[3]:
        x = g.matmul(x, g.constant(columns.T))
    if len(rows) != x.shape[2]:
        x = g.matmul(g.constant(rows), x)
    return x


def _nearest(size: int, wanted: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    found = np.zeros((wanted, size))
    found[range(wanted), [place * size // wanted for place in range(wanted)]] = 1
    return found
