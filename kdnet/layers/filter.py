"""Filter: the items of a batch that a blob selects."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, layer
from kdnet.layers.kept import Kept


@layer("Filter", bottoms=(2, ANY), tops=(1, ANY))
class Filter(Layer):
    """Let through the items whose selector is not 0.

        y_i[m] = x_i[n_m],  n_0 < n_1 < ... the items with s[n] ≠ 0, c of them

    Shapes:
        x_i  (N, ...)      bottom i, all but the last
        s    (N, 1, ...)   the last bottom
        y_i  as x_i        top i: the c items first, then the first of them again and again (the
                           first of x_i where c is 0)
    Parameters: none
    Gradient: from the op rules, to the items that were kept; s gets none.
    Differs from Caffe: the batch keeps its N items, so that shapes stand still; c is known to the
        layers that follow. Those that treat each item by itself do so, Accuracy and the losses
        SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss, HingeLoss, ContrastiveLoss,
        MultinomialLogisticLoss, InfogainLoss and TeacherStudentCrossEntropy count c items, and
        others are refused: all values and gradients are those of a batch of c items. Where c is
        0 a loss is 0; in Caffe some are 0 / 0. A top that nobody reads is shown with all N items.
    Faults: another number of tops than of bottoms but one; bottoms of other batch sizes; more than
        one number an item in the selector. Behind it [filtered-batch]: a layer that mixes items
        (BatchNorm by the batch's statistics, Reduction or Softmax over axis 0, a loss that is not
        listed), bottoms of which some were filtered in another way or not at all, and a
        loss_weight for a top that is not a loss.
    Source: BVLC/caffe filter_layer.
    """

    # The blob's own tensor, where the bottom is a copy of it.
    selector: Tensor | None = None

    def check(self, *bottoms: Tensor) -> None:
        """One number an item in the selector, and a top for every other bottom."""
        *data, selector = bottoms
        wanted, tops = len(data), len(self.model.tops)
        if tops != wanted:
            text = f"one top for each bottom but the last wanted: {wanted}, not {tops}"
            self.fail("top-count", text, self.model.source.span(("top", min(wanted, tops - 1))))
        names, last = self.model.bottoms, len(data)
        say = f'selector "{names[last]}" of shape {selector.shape}; one number an item wanted'
        fits = selector.rank > 0 and selector.size == selector.shape[0]
        self.require_shape(fits, bottom=last, say=say)
        for index, x in enumerate(data):
            say = f'bottom "{names[index]}" has shape {x.shape}, but there are {selector.size}'
            fits = x.shape[:1] == selector.shape[:1]
            self.require_shape(fits, bottom=index, say=f"{say} numbers to select its items")

    def emit(self, g: Emitter, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """The order of the items, then a Gather for each top."""
        *data, selector = bottoms
        items = selector.size
        numbers = g.reshape(g.stop_gradient(selector), (items,))
        chosen = g.op("Not", g.equal(numbers, 0.0))
        if self.kept is not None:
            chosen = g.op("And", chosen, self.kept.there(g, 1))
        weight = g.cast(chosen)
        kept = Kept(self.selector or selector, g.sum_all(weight), items)
        for name in self.model.tops:
            self.trace.kept[name] = kept
        places = _in_order(g, weight, kept)
        return tuple(g.op("Gather", x, places, axis=0) for x in data)


def _in_order(g: Emitter, weight: Tensor, kept: Kept) -> Tensor:
    """The number of the item for each place: those of weight 1 as they come, then the first."""
    # No two ranks are equal, so that the order is the same on every device.
    falling = g.constant(np.arange(kept.items, 0, -1))
    rank = g.add(g.mul(weight, kept.items), falling)
    _ranks, order = g.multi("TopK", rank, g.ints(kept.items), count=2, axis=0)
    return g.where(kept.there(g, 1), order, g.slice(order, [0], [0], [1]))
