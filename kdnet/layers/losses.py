"""Losses: SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss."""

from __future__ import annotations

from math import log, prod

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.kept import of_kept, per_item
from kdnet.layers.labels import check_labels, read_labels
from kdnet.layers.normalization import LossLayer, Mode

LOG_FLT_MIN = log(float(np.finfo(np.float32).tiny))


@layer("SoftmaxWithLoss", params="softmax_param", bottoms=2, tops=(1, 2))
class SoftmaxWithLoss(LossLayer):
    """Cross entropy between softmax probabilities and whole-number labels.

        L = 1/Z · Σ_n −ln max(softmax(x[n])[t[n]], 2⁻¹²⁶)

    Shapes:
        x  (N..., C, M...)  bottom 0; the class axis is ``axis``
        t  (N..., M...)     bottom 1; any shape with as many elements and the same first axis
        L  ()               top 0
        p  as x             top 1, optional: the probabilities
    Parameters: axis (1); loss_param: ignore_label (none), normalization (VALID): Z is the
        number of predictions (FULL), of those not ignored (VALID), N (BATCH_SIZE) or 1 (NONE);
        at least 1
    Gradient: from the op rules; the clamp at 2⁻¹²⁶ is of the value only, as in Caffe.
    Differs from Caffe: a label that is no class adds nothing (and is refused when it is fed).
    Faults: axis out of range; a label shape that does not fit.
    Source: BVLC/caffe softmax_loss_layer.
    """

    roles = ("logits", "label")

    def check(self, x: Tensor, labels: Tensor) -> None:
        """The axis exists and there is one label a prediction."""
        check_labels(self, x, labels, self.axis(x, self.params.axis))

    def emit(self, g: Emitter, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Log-probabilities at the labels, summed and divided."""
        axis = self.axis(x, self.params.axis)
        self.expect_labels(labels, x.shape[axis], self.ignore)
        found = read_labels(g, x, labels, axis, self.ignore)
        at_label = g.where(found.hit, g.log_softmax(x, axis), 0.0)
        picked = g.reduce_sum(at_label, [axis])
        terms = g.straight_through(g.maximum(picked, LOG_FLT_MIN), picked)
        if found.ignored is not None:
            terms = g.where(found.ignored, 0.0, terms)
        loss = self.normalized(
            g,
            g.sum_all(of_kept(g, terms, self.kept)),
            positions=terms.size,
            items=prod(x.shape[:axis]),
            ignored=found.ignored,
            factor=-1.0,
        )
        return (loss, g.softmax(x, axis))[: len(self.model.tops)]


@layer("SigmoidCrossEntropyLoss", bottoms=2)
class SigmoidCrossEntropyLoss(LossLayer):
    """Cross entropy between sigmoid probabilities and targets in [0, 1].

        L = 1/Z · Σ_i ln(1 + exp(x[i])) − x[i]·t[i]

    Shapes:
        x  (N, ...)  bottom 0
        t  (N, ...)  bottom 1; as many elements as x
        L  ()        top 0
    Parameters: loss_param: ignore_label (none) compares with t rounded towards 0; normalization
        (BATCH_SIZE): Z is the number of elements (FULL), of those not ignored (VALID),
        N (BATCH_SIZE) or 1 (NONE); at least 1
    Gradient: from the op rules, (σ(x) − t) / Z; the targets get none.
    Differs from Caffe: a target that trained layers produce is a constant here; Caffe stops.
    Faults: shapes with different numbers of elements.
    Source: BVLC/caffe sigmoid_cross_entropy_loss_layer.
    """

    roles = ("binary logits", "target")

    default_normalization = Mode.BATCH_SIZE

    def check(self, x: Tensor, target: Tensor) -> None:
        """As many targets as predictions."""
        self.require_shape(
            x.size == target.size and x.shape[:1] == target.shape[:1],
            bottom=1,
            say=f"targets of shape {target.shape} for predictions of shape {x.shape}",
            help="both bottoms must have the same shape",
        )

    def emit(self, g: Emitter, x: Tensor, target: Tensor) -> Tensor:
        """The stable form of both cases of the sign."""
        t = g.reshape(g.stop_gradient(target), x.shape)
        terms = g.sub(g.op("Softplus", x), g.mul(x, t))
        ignored = None
        if self.ignore is not None:
            ignored = g.equal(g.cast(t, np.int64), self.ignore)
            terms = g.where(ignored, 0.0, terms)
        items = x.shape[0] if x.rank else 1
        total = g.sum_all(of_kept(g, terms, self.kept))
        return self.normalized(g, total, positions=x.size, items=items, ignored=ignored)


@layer("EuclideanLoss", bottoms=2)
class EuclideanLoss(LossLayer):
    """Half the squared distance of two bottoms, averaged over the batch.

        L = 1/(2N) · Σ_i (a[i] − b[i])²

    Shapes:
        a  (N, ...)  bottom 0
        b  (N, ...)  bottom 1; as many elements as a
        L  ()        top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to both bottoms.
    Differs from Caffe: nothing.
    Faults: shapes with different numbers of elements.
    Source: BVLC/caffe euclidean_loss_layer.
    """

    roles = ("values", "target")

    def check(self, a: Tensor, b: Tensor) -> None:
        """The bottoms have a batch axis and fit."""
        self.require_shape(a.rank > 0, bottom=0, say="a single number has no batch axis")
        self.require_shape(
            a.shape[:1] == b.shape[:1] and a.size == b.size,
            bottom=1,
            say=f'bottom "{self.model.bottoms[1]}" has shape {b.shape}, '
            f'but "{self.model.bottoms[0]}" has {a.shape}',
            help="both bottoms must have the same shape",
        )

    def emit(self, g: Emitter, a: Tensor, b: Tensor) -> Tensor:
        """The sum of squares of the difference."""
        difference = g.sub(a, g.reshape(b, a.shape))
        terms = of_kept(g, g.square(difference), self.kept)
        return per_item(g, g.sum_all(terms), 0.5, a.shape[0], self.kept)
