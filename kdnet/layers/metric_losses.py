"""HingeLoss and ContrastiveLoss: losses with a margin, beyond which nothing more is wanted."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.kept import of_kept, per_item
from kdnet.layers.labels import read_labels
from kdnet.layers.normalization import LossLayer
from kdnet.schema import kdnet_pb2 as pb

# What Caffe adds to a distance that it divides by.
NEAREST = 1e-4


def check_one_label_each(layer: Layer, scores: Tensor, labels: Tensor) -> None:
    """Require (N, D...) scores and N labels."""
    say = f"(items, classes...) wanted, not {scores.shape}"
    layer.require_shape(scores.rank > 1, bottom=0, say=say)
    items = scores.shape[0]
    say = f"labels of shape {labels.shape} for {items} items"
    fits = labels.shape[:1] == (items,) and labels.size == items
    layer.require_shape(fits, bottom=layer.label_bottom, say=say, help="one label for each item")


@layer("HingeLoss", params="hinge_loss_param", bottoms=2)
class HingeLoss(LossLayer):
    """One against all others with a margin of 1.

        L1: L = 1/N · Σ_n Σ_k max(0, 1 − s · x[n, k])
        L2: L = 1/N · Σ_n Σ_k max(0, 1 − s · x[n, k])²

    where s is 1 for k = t[n] and −1 for the other classes.

    Shapes:
        x  (N, K...)  bottom 0; axes from 1 on are flattened to the classes
        t  (N)        bottom 1; any shape with as many elements and the same first axis
        L  ()         top 0
    Parameters: norm (L1); loss_param is not read
    Gradient: from the op rules; 0 on the margin.
    Differs from Caffe: a label that is no class counts as the other classes do (and is refused
        when it is fed).
    Faults: a bottom without classes; a label shape that does not fit.
    Source: BVLC/caffe hinge_loss_layer.
    """

    roles = ("logits", "label")

    def check(self, x: Tensor, labels: Tensor) -> None:
        """There is one label an item."""
        check_one_label_each(self, x, labels)

    def emit(self, g: Emitter, x: Tensor, labels: Tensor) -> Tensor:
        """The rectified distances to the margin, summed."""
        items = x.shape[0]
        scores = g.reshape(x, (items, x.size // items))
        self.expect_labels(labels, scores.shape[1])
        hit = read_labels(g, scores, labels, 1, None).hit
        missing = g.relu(g.add(g.mul(scores, g.where(hit, -1.0, 1.0)), 1.0))
        squared = self.params.norm == pb.HingeLossParameter.L2
        terms = g.square(missing) if squared else missing
        total = g.sum_all(of_kept(g, terms, self.kept))
        return per_item(g, total, 1.0, items, self.kept)


@layer("ContrastiveLoss", params="contrastive_loss_param", bottoms=3)
class ContrastiveLoss(LossLayer):
    """Draw similar pairs together, and push others apart up to a margin.

        L = 1/(2N) · Σ_n t·d² + (1 − t)·max(0, margin − d)²,  d = ‖a[n] − b[n]‖

    or, with ``legacy_version``, max(0, margin − d²) for the pairs that are not similar.

    Shapes:
        a  (N, C...)  bottom 0
        b  (N, C...)  bottom 1
        t  (N)        bottom 2: not 0 for a similar pair; any shape of as many elements
        L  ()         top 0
    Parameters: margin (1); legacy_version (false); loss_param is not read
    Gradient: from the op rules, to a and b; but that of the margin's term has d + 1e-4 for d where
        it divides by it, as in Caffe: so it is 0 where a and b are the same.
    Differs from Caffe: nothing.
    Faults: bottoms of different shapes; another number of pairs than N.
    Source: BVLC/caffe contrastive_loss_layer; Hadsell et al. 2006.
    """

    roles = ("values", "values", "target")

    def check(self, a: Tensor, b: Tensor, similar: Tensor) -> None:
        """The bottoms are pairs."""
        say = f"(pairs, features...) wanted, not {a.shape}"
        self.require_shape(a.rank > 0, bottom=0, say=say)
        names = self.model.bottoms
        say = f'bottom "{names[1]}" has shape {b.shape}, but "{names[0]}" has {a.shape}'
        self.require_shape(a.shape == b.shape, bottom=1, say=say)
        say = f'bottom "{names[2]}" has shape {similar.shape} for {a.shape[0]} pairs'
        self.require_shape(similar.size == a.shape[0], bottom=2, say=say)

    def emit(self, g: Emitter, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        """A term for each pair, chosen by its mark."""
        items, margin = a.shape[0], self.params.margin
        apart = g.reshape(g.sub(a, b), (items, a.size // items))
        squared = g.reduce_sum(g.square(apart), [1])
        if self.params.legacy_version:
            pushed = g.relu(g.sub(margin, squared))
        else:
            pushed = _pushed(g, squared, margin)
        # Caffe cuts the mark down to a whole number.
        marks = g.cast(g.cast(g.reshape(similar, (items,)), np.int64), np.bool_)
        terms = of_kept(g, g.where(marks, squared, pushed), self.kept)
        return per_item(g, g.sum_all(terms), 0.5, items, self.kept)


def _pushed(g: Emitter, squared: Tensor, margin: float) -> Tensor:
    """max(0, margin − d)² of d², whose slope is −max(0, margin − d) / (d + 1e-4)."""
    distance = g.sqrt(g.stop_gradient(squared))
    missing = g.relu(g.sub(margin, distance))
    slope = g.neg(g.div(missing, g.add(distance, NEAREST)))
    return g.straight_through(g.square(missing), g.mul(squared, slope))
