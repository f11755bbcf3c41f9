"""Reduction and ArgMax: fewer numbers from many."""

from __future__ import annotations

from math import prod

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.schema import kdnet_pb2 as pb

Operation = pb.ReductionParameter


@layer("Reduction", params="reduction_param")
class Reduction(Layer):
    """Reduce all axes from one on to a single number.

        SUM:   y[n] = coeff · Σ_i x[n, i]
        ASUM:  y[n] = coeff · Σ_i |x[n, i]|
        SUMSQ: y[n] = coeff · Σ_i x[n, i]²
        MEAN:  y[n] = coeff/I · Σ_i x[n, i]

    Shapes:
        x  (N..., I...)  bottom 0; I are the axes from ``axis`` on
        y  (N...)        top 0; () where ``axis`` is 0
    Parameters: operation (SUM); axis (0); coeff (1)
    Gradient: from the op rules; that of ASUM is 0 at 0.
    Differs from Caffe: nothing.
    Faults: axis out of range.
    Source: BVLC/caffe reduction_layer.
    """

    def check(self, x: Tensor) -> None:
        """The axis exists."""
        self.axis(x, self.params.axis)

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node, and one for the factor."""
        axes = range(self.axis(x, self.params.axis), x.rank)
        operation = self.params.operation
        terms = x
        if operation == Operation.ASUM:
            terms = g.abs(x)
        elif operation == Operation.SUMSQ:
            terms = g.square(x)
        mean = operation == Operation.MEAN
        reduced = g.reduce_mean(terms, axes) if mean else g.reduce_sum(terms, axes)
        return g.mul(reduced, self.params.coeff)


@layer("ArgMax", params="argmax_param")
class ArgMax(Layer):
    """Find the places of the largest elements.

        y[n, k] = i of the k-th largest x[n, i]; of equal ones the last comes first

    Shapes:
        x  (N, I...)       bottom 0; with ``axis`` (A..., I, B...)
        y  (N, 1, K, ...)  top 0: places in the flattened item; with ``out_max_val``
            (N, 2, K, ...), the places, then the values; further axes of x have extent 1.
            With ``axis`` (A..., K, B...): places along it, or with ``out_max_val`` the values
    Parameters: out_max_val (false); top_k K (1), from 1 to the number of elements; axis (none)
    Gradient: none: what lies before the layer is not trained through it.
    Differs from Caffe: a net that would have to be trained through it compiles; Caffe stops.
    Faults: top_k 0 or above the number of elements; axis out of range.
    Source: BVLC/caffe argmax_layer.
    """

    @property
    def _along(self) -> bool:
        """Whether an axis is given."""
        given: bool = self.params.HasField("axis")
        return given

    def check(self, x: Tensor) -> None:
        """There are as many elements as are asked for."""
        count = x.shape[self.axis(x, self.params.axis)] if self._along else prod(x.shape[1:])
        top_k = self.params.top_k
        self.require(
            1 <= top_k <= count,
            at="top_k",
            say=f"{top_k} of {count} elements of a bottom of shape {x.shape}",
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """TopK of the elements backwards, since it prefers the first of equal ones."""
        x = g.stop_gradient(x)
        if self._along:
            values, places = self._largest(g, x, self.axis(x, self.params.axis))
            return values if self.params.out_max_val else places
        items = x.shape[0]
        values, places = self._largest(g, g.reshape(x, (items, x.size // items)), 1)
        kinds = (places, values) if self.params.out_max_val else (places,)
        joined = g.concat([g.reshape(kind, (items, 1, self.params.top_k)) for kind in kinds], 1)
        return g.reshape(joined, (*joined.shape, *[1] * (x.rank - joined.rank)))

    def _largest(self, g: Emitter, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        count = x.shape[axis]
        backwards = g.slice(x, [axis], [-1], [-count - 1], [-1])
        top_k = g.ints(self.params.top_k)
        values, places = g.multi("TopK", backwards, top_k, count=2, axis=axis)
        return values, g.cast(g.sub(g.constant(count - 1, np.int64), places))
