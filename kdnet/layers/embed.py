"""Embed, Parameter and BatchReindex: tables, and their rows by number."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.layers.trace import LabelCheck


@layer("Embed", params="embed_param")
class Embed(Layer):
    """Look up the row of a table for each whole number.

        y[n, k] = w[x[n], k] + b[k]

    Shapes:
        x  (N...)     bottom 0, whole numbers from 0 to D − 1
        w  (D, K)     weight 0
        b  (K)        weight 1, unless ``bias_term`` is false
        y  (N..., K)  top 0
    Parameters: num_output K ≥ 1 and input_dim D ≥ 1 (required); bias_term (true); weight_filler;
        bias_filler
    Gradient: from the op rules, to the rows that were read; x gets none.
    Differs from Caffe: a number outside the table is refused when it is fed.
    Faults: num_output or input_dim missing.
    Source: BVLC/caffe embed_layer.
    """

    def check(self, _x: Tensor) -> None:
        """The table has rows and columns."""
        for name in ("num_output", "input_dim"):
            self.require(getattr(self.params, name) > 0, at=name, say="must be positive")

    def weights(self, _x: Tensor) -> list[Weight]:
        """Table and bias."""
        k = self.params.num_output
        found = [Weight("weight", (self.params.input_dim, k), self.params.weight_filler)]
        if self.params.bias_term:
            found.append(Weight("bias", (k,), self.params.bias_filler))
        return found

    def emit(self, g: Emitter, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """One Gather."""
        span, rows = self.model.source.span(("bottom", 0)), self.params.input_dim
        check = LabelCheck(x, self.model.name, rows, None, span, "index")
        self.trace.labels.append(check)
        found = g.op("Gather", w, g.cast(x, np.int64), axis=0)
        return found if b is None else g.add(found, b)


@layer("Parameter", params="parameter_param", bottoms=0)
class Parameter(Layer):
    """Make a blob of numbers that are learnt.

        y = w

    Shapes:
        w  as ``shape`` says  weight 0
        y  as w               top 0
    Parameters: shape (a single number)
    Gradient: the top's.
    Differs from Caffe: nothing.
    Faults: an extent below 1.
    Source: BVLC/caffe parameter_layer.
    """

    def check(self) -> None:
        """Every extent is positive."""
        for index, extent in enumerate(self.params.shape.dim):
            self.require(extent > 0, at=f"shape.dim.{index}", say=f"{extent} is no extent")

    def weights(self) -> list[Weight]:
        """The blob."""
        return [Weight("weight", tuple(self.params.shape.dim))]

    def emit(self, _g: Emitter, w: Tensor) -> Tensor:
        """No node."""
        return w


@layer("BatchReindex", bottoms=2)
class BatchReindex(Layer):
    """Choose items of a batch by their number, in any order, each as often as it is named.

        y[m] = x[i[m]]

    Shapes:
        x  (N, ...)  bottom 0
        i  (M)       bottom 1, whole numbers from 0 to N − 1
        y  (M, ...)  top 0
    Parameters: none
    Gradient: from the op rules: an item's is the sum over where it went; i gets none.
    Differs from Caffe: a number outside the batch is refused when it is fed; one that a layer
        computes is not looked at.
    Faults: a bottom without a batch axis; numbers on more than one axis.
    Source: BVLC/caffe batch_reindex_layer.
    """

    def check(self, x: Tensor, places: Tensor) -> None:
        """There are items, and a list of numbers."""
        self.require_shape(x.rank > 0, bottom=0, say="a single number has no batch axis")
        say = f"numbers of items of shape {places.shape}; one axis wanted"
        self.require_shape(places.rank == 1, bottom=1, say=say)

    def emit(self, g: Emitter, x: Tensor, places: Tensor) -> Tensor:
        """One Gather."""
        span = self.model.source.span(("bottom", 1))
        check = LabelCheck(places, self.model.name, x.shape[0], None, span, "item")
        self.trace.labels.append(check)
        return g.op("Gather", x, g.cast(places, np.int64), axis=0)
