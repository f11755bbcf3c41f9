"""Accuracy."""

from __future__ import annotations

from dataclasses import replace

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.kept import left_out, of_kept, per_item
from kdnet.layers.labels import Labels, check_labels, read_labels


@layer("Accuracy", params="accuracy_param", bottoms=2, tops=(1, 2))
class Accuracy(Layer):
    """The share of items whose label is among the ``top_k`` best scores.

        y = 1/Z · Σ_n [ |{c : x[n, c] ≥ x[n, t[n]]}| ≤ top_k ]

    Shapes:
        x  (N..., C, M...)  bottom 0; the class axis is ``axis``
        t  (N..., M...)     bottom 1; any shape with as many elements and the same first axis
        y  ()               top 0
        r  (C)              top 1, optional: the same for the items of each class; 0 for a class
                            without items
    Parameters: top_k (1), at most C; axis (1); ignore_label (none): Z counts the other items
    Gradient: none; it is piecewise constant.
    Differs from Caffe: nothing. A score equal to the true class's counts against it.
    Faults: axis out of range; a label shape that does not fit; top_k outside 1 to C.
    Source: BVLC/caffe accuracy_layer.
    """

    roles = ("logits", "label")

    is_metric = True

    @property
    def ignore(self) -> int | None:
        """The label that is not counted, or None."""
        return self.params.ignore_label if self.params.HasField("ignore_label") else None

    def check(self, x: Tensor, labels: Tensor) -> None:
        """The axis exists, the labels fit, and there are top_k classes."""
        axis = self.axis(x, self.params.axis)
        check_labels(self, x, labels, axis)
        top_k, classes = self.params.top_k, x.shape[axis]
        self.require(
            1 <= top_k <= classes,
            at="top_k",
            say=f"must be from 1 to {classes}, the number of classes, not {top_k}",
        )

    def emit(self, g: Emitter, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Count the scores that are at least the true class's."""
        axis = self.axis(x, self.params.axis)
        self.expect_labels(labels, x.shape[axis], self.ignore)
        found = read_labels(g, x, labels, axis, self.ignore)
        found = replace(found, ignored=left_out(g, found.ignored, self.kept))
        true_score = g.reduce_sum(g.where(found.hit, x, 0.0), [axis], keepdims=True)
        above = g.cast(g.op("GreaterOrEqual", x, true_score))
        rank = g.reduce_sum(above, [axis])
        right = g.where(g.less(rank, self.params.top_k + 0.5), 1.0, 0.0)
        if len(self.model.tops) == 1:
            return (self._share(g, right, found),)
        return self._share(g, right, found), self._by_class(g, right, found, axis)

    def _share(self, g: Emitter, right: Tensor, labels: Labels) -> Tensor:
        if labels.ignored is None:
            total = g.sum_all(of_kept(g, right, self.kept))
            return per_item(g, total, 1.0, max(right.size, 1), self.kept)
        counted = g.where(labels.ignored, 0.0, 1.0)
        return g.div(g.sum_all(g.mul(right, counted)), g.maximum(g.sum_all(counted), 1.0))

    def _by_class(self, g: Emitter, right: Tensor, labels: Labels, axis: int) -> Tensor:
        shape = labels.hit.shape
        member = of_kept(g, g.cast(labels.hit), self.kept)
        if labels.ignored is not None:
            counted = g.where(labels.ignored, 0.0, 1.0)
            member = g.mul(member, _with_axis(g, counted, axis))
        others = [index for index in range(len(shape)) if index != axis]
        hits = g.reduce_sum(g.mul(member, _with_axis(g, right, axis)), others)
        return g.div(hits, g.maximum(g.reduce_sum(member, others), 1.0))


def _with_axis(g: Emitter, x: Tensor, axis: int) -> Tensor:
    return g.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))
