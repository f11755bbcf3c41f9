"""Eltwise."""

from __future__ import annotations

from functools import reduce

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, layer
from kdnet.schema import kdnet_pb2 as pb

Operation = pb.EltwiseParameter


@layer("Eltwise", params="eltwise_param", bottoms=(2, ANY))
class Eltwise(Layer):
    """Combine bottoms of one shape, element by element.

        SUM:  y = Σ_i coeff_i · x_i
        PROD: y = Π_i x_i
        MAX:  y = max_i x_i

    Shapes:
        x_i  any   bottom i, all of one shape
        y    as x  top 0
    Parameters: operation (SUM); coeff (1 each), for SUM; stable_prod_grad has no effect
    Gradient: from the op rules. MAX hands it to the largest; a tie of the first two bottoms goes
        to the second and any other to the earlier, as in Caffe.
    Differs from Caffe: the gradient of PROD is always the product of the others, so it is exact
        at zeros; Caffe divides where stable_prod_grad is false.
    Faults: bottoms of different shapes; another number of coeff than bottoms; coeff with PROD.
    Source: BVLC/caffe eltwise_layer.
    """

    def check(self, first: Tensor, *others: Tensor) -> None:
        """Equal shapes, and coefficients for sums only, one each."""
        coefficients, count = len(self.params.coeff), 1 + len(others)
        self.require(
            coefficients in (0, count),
            at="coeff",
            say=f"{count} bottoms need {count} factors, not {coefficients}",
            help="without any, they are all 1",
        )
        self.require(
            not coefficients or self.params.operation != Operation.PROD,
            at="coeff",
            say="has no meaning in a product",
            help="put a Power layer with scale before the bottom",
        )
        for index, other in enumerate(others, start=1):
            self.require_shape(
                other.shape == first.shape,
                bottom=index,
                say=f'bottom "{self.model.bottoms[index]}" has shape {other.shape}, '
                f'but "{self.model.bottoms[0]}" has {first.shape}',
                help="all bottoms must have one shape",
            )

    def emit(self, g: Emitter, *bottoms: Tensor) -> Tensor:
        """One node a pair of bottoms, or one for all where ONNX has it."""
        operation = self.params.operation
        if operation == Operation.PROD:
            return reduce(g.mul, bottoms)
        if operation == Operation.MAX:
            first, second, *others = bottoms
            # Max gives a tie to its first input, and Caffe this one to its second bottom.
            return reduce(g.maximum, others, g.maximum(second, first))
        return _weighted_sum(g, bottoms, tuple(self.params.coeff))


def _weighted_sum(
    g: Emitter, bottoms: tuple[Tensor, ...], coefficients: tuple[float, ...]
) -> Tensor:
    factors = coefficients or (1.0,) * len(bottoms)
    if set(factors) == {1.0} and len(bottoms) > 2:
        return g.op("Sum", *bottoms)
    total = g.mul(bottoms[0], factors[0])
    for bottom, factor in zip(bottoms[1:], factors[1:], strict=True):
        total = g.sub(total, bottom) if factor == -1 else g.add(total, g.mul(bottom, factor))
    return total
