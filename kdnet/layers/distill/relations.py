"""Losses of the relations between the items of a batch: SP, CC, RKD, PKT."""

from __future__ import annotations

from math import exp, prod

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.features import FeatureLoss, mean_all, mean_square, unit
from kdnet.schema import kdnet_pb2 as pb

Kernel = pb.CorrelationCongruenceParameter

LEAST_SQUARED_DISTANCE = 1e-12
PROBABILITY_EPS = 1e-7
HIGHEST_ORDER = 20
MOST_VALUES = int(np.iinfo(np.int32).max)


class RelationLoss(FeatureLoss):
    """A loss that compares N×N relations, so that features may have any length on each side.

    ``least_items`` is the smallest batch that has relations.
    """

    same_channels = False
    same_space = False
    flat = True
    least_items = 1

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Batches of as many items, and enough of them."""
        self.check_pair(student, teacher)
        least = self.least_items
        say = f"a batch of {student.shape[0]} has no relations; at least {least} items wanted"
        self.require_shape(student.shape[0] >= least, bottom=0, say=say)


@layer("SimilarityPreserving", bottoms=2)
class SimilarityPreserving(RelationLoss):
    """Squared distance of the similarities between the items of a batch (SP).

        G_x = x · xᵀ with each row scaled to length 1,   L = 1/N² · Σ (G_s − G_t)²

    Shapes:
        s  (N, ...)  bottom 0: the student's features, each item taken as one row
        t  (N, ...)  bottom 1: the teacher's features, of any length
        L  ()        top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to the student; the teacher gets none. That of an item of zeros
        is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 3000.
    Faults: batches of different sizes.
    Source: Tung, Mori 2019, "Similarity-Preserving Knowledge Distillation"; value as
        HobbitLong/RepDistiller Similarity.
    """

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean square of the matrices."""
        s, t = (unit(g, g.gemm(x, x, trans_b=True), [1]) for x in (student, teacher))
        return mean_square(g, s, t)


@layer("ProbabilisticKnowledgeTransfer", bottoms=2)
class ProbabilisticKnowledgeTransfer(RelationLoss):
    """Divergence of the probabilities with which items of a batch choose each other (PKT).

        p_x[i, j] = (1 + cos(x[i], x[j])) / Σ_j (1 + cos(x[i], x[j]))
        L = 1/N² · Σ p_t · ln((p_t + ε) / (p_s + ε))

    with cos the product of x over |x| + ε, and ε = 1e-7.

    Shapes:
        s  (N, ...)  bottom 0: the student's features, each item taken as one row
        t  (N, ...)  bottom 1: the teacher's features, of any length
        L  ()        top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to the student; the teacher gets none. That of an item of zeros
        is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 30000.
    Faults: batches of different sizes.
    Source: Passalis, Tefas 2018, "Learning Deep Representations with Probabilistic Knowledge
        Transfer"; value as HobbitLong/RepDistiller PKT, which divides the divergence by N²
        although its rows are N distributions.
    """

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean of the terms of the divergence."""
        s, t = _choices(g, student), _choices(g, teacher)
        ratio = g.div(g.add(t, PROBABILITY_EPS), g.add(s, PROBABILITY_EPS))
        return mean_all(g, g.mul(t, g.log(ratio)))


def _choices(g: Emitter, x: Tensor) -> Tensor:
    rows = unit(g, x, [1], 0.0, added=PROBABILITY_EPS)
    similar = g.mul(g.add(g.gemm(rows, rows, trans_b=True), 1.0), 0.5)
    return g.div(similar, g.reduce_sum(similar, [1], keepdims=True))


@layer("RelationalDistance", bottoms=2)
class RelationalDistance(RelationLoss):
    """Huber distance of the pairwise distances in a batch, over their mean (RKD-D).

        d_x[i, j] = |x[i] − x[j]| / mean over i ≠ j,   L = mean over all i, j of h(d_s − d_t)

    with h(e) = e²/2 for |e| < 1, else |e| − 1/2.

    Shapes:
        s  (N, ...)  bottom 0: the student's features, each item taken as one row; N at least 2
        t  (N, ...)  bottom 1: the teacher's features, of any length
        L  ()        top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to the student; the teacher gets none. That of a distance below
        1e-6 is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 25, beside a
        RelationalAngle of 50.
    Faults: batches of different sizes, or of one item.
    Source: Park et al. 2019, "Relational Knowledge Distillation"; value as lenscloth/RKD
        RkdDistance, whose mean counts the diagonal.
    """

    least_items = 2

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """Huber's distance of the relative distances."""
        return _huber(g, _relative_distances(g, student), _relative_distances(g, teacher))


def _relative_distances(g: Emitter, x: Tensor) -> Tensor:
    """Distances over their mean, from products of centred rows.

    Distances do not depend on the centre, so neither does their gradient; about it the difference
    of squares loses fewer digits.
    """
    count = x.shape[0]
    rows = g.sub(x, g.reduce_mean(g.stop_gradient(x), [0], keepdims=True))
    squares = g.reduce_sum(g.square(rows), [1], keepdims=True)
    sums = g.add(squares, g.transpose(squares, (1, 0)))
    between = g.sub(sums, g.mul(g.gemm(rows, rows, trans_b=True), 2.0))
    others = g.constant(1 - np.eye(count))
    distances = g.mul(g.sqrt(g.maximum(between, LEAST_SQUARED_DISTANCE)), others)
    return g.div(distances, g.mul(g.sum_all(distances), 1.0 / (count * (count - 1))))


def _huber(g: Emitter, a: Tensor, b: Tensor) -> Tensor:
    """The mean of e²/2 for |e| < 1, else |e| − 1/2, as m·(|e| − m/2) with m = min(|e|, 1)."""
    error = g.abs(g.sub(a, b))
    near = g.minimum(error, 1.0)
    return mean_all(g, g.mul(near, g.sub(error, g.mul(near, 0.5))))


@layer("RelationalAngle", bottoms=2)
class RelationalAngle(RelationLoss):
    """Huber distance of the cosines of the angles that any three items of a batch form (RKD-A).

        c_x[i, j, k] = cos of the angle at x[i] between x[j] and x[k]
        L = mean over all i, j, k of h(c_s − c_t)

    with h(e) = e²/2 for |e| < 1, else |e| − 1/2.

    Shapes:
        s  (N, D_s...)  bottom 0: the student's features, each item taken as one row
        t  (N, D_t...)  bottom 1: the teacher's features, of any length
        L  ()           top 0; on the way there are (N, N, D) differences and (N, N, N) cosines
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to the student; the teacher gets none. That of a side no longer
        than 1e-12 is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 50, beside a
        RelationalDistance of 25.
    Faults: batches of different sizes; more than 2^31 − 1 differences.
    Source: Park et al. 2019, "Relational Knowledge Distillation"; value as lenscloth/RKD
        RKdAngle, whose mean counts angles between equal items.
    """

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Batches of as many items, whose differences an array can hold."""
        super().check(student, teacher)
        for index, x in enumerate((student, teacher)):
            shape = (x.shape[0], x.shape[0], x.size // x.shape[0])
            say = f"the differences of its items, of shape {shape}, are too many for an array"
            fits = prod(shape) <= MOST_VALUES
            self.require_shape(fits, bottom=index, say=say, help="put a Pooling before it")

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """Huber's distance of the cosines."""
        return _huber(g, _cosines(g, student), _cosines(g, teacher))


def _cosines(g: Emitter, x: Tensor) -> Tensor:
    count, length = x.shape
    sides = g.sub(g.reshape(x, (1, count, length)), g.reshape(x, (count, 1, length)))
    directions = unit(g, sides, [2])
    return g.matmul(directions, g.transpose(directions, (0, 2, 1)))


@layer("CorrelationCongruence", params="correlation_congruence_param", bottoms=2)
class CorrelationCongruence(RelationLoss):
    """Distance of the correlations between the items of a batch (CC).

        NEIGHBOURS: L = 1/(N − 1) · Σ_n |r(s) − t|[n] · |r(s) − t|[n + 1]
        GAUSSIAN:   L = 1/N² · Σ (K_r(s) − K_t)²,
                    K_x[i, j] = Σ_{p ≤ order} e^(−2γ) · (2γ)^p / p! · cos(x[i], x[j])^p

    with the projector r, trained with the student.

    Shapes:
        s  (N, ...)    bottom 0: the student's features, each item taken as one row of length A
        t  (N, ...)    bottom 1: the teacher's features, rows of length B
        w  (B, A)      weight 0, "projector/weight", where there is a projector
        b  (B)         weight 1, "projector/bias"
        L  ()          top 0
    Parameters: kernel (NEIGHBOURS): what the authors' code computes, or GAUSSIAN, the kernel of
        their paper; gamma γ (0.4), positive, and order (2), 1 to 20, of GAUSSIAN; projector as
        for Hint: an inner product where A ≠ B
    Gradient: from the op rules, to the student and the projector; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 0.02 with
        NEIGHBOURS. RepDistiller maps student and teacher to 128 values each; for that, put an
        InnerProduct before bottom 0. A trained map of the teacher's side would be constant here.
    Faults: batches of different sizes; one item and NEIGHBOURS; lengths that differ and a
        projector of NONE; a CONVOLUTION; gamma or order out of range.
    Source: Peng et al. 2019, "Correlation Congruence for Knowledge Distillation"; value of
        NEIGHBOURS as HobbitLong/RepDistiller Correlation, relations of GAUSSIAN as
        yoshitomo-matsubara/torchdistill CCKDLoss of unit vectors.
    """

    same_channels = True

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """A usable kernel and enough items."""
        gamma, order = self.params.gamma, self.params.order
        finite = 0 < gamma < float("inf")
        self.require(finite, at="gamma", say=f"must be positive, not {gamma:g}")
        fits = 1 <= order <= HIGHEST_ORDER
        self.require(fits, at="order", say=f"must be 1 to {HIGHEST_ORDER}, not {order}")
        self.check_pair(student, teacher)
        enough = student.shape[0] > 1 or self.params.kernel == Kernel.GAUSSIAN
        self.require_shape(enough, bottom=0, say="a batch of one item has no neighbours")

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """By the kernel."""
        if self.params.kernel == Kernel.GAUSSIAN:
            return mean_square(g, self._relations(g, student), self._relations(g, teacher))
        error, count = g.abs(g.sub(student, teacher)), student.shape[0]
        products = g.mul(g.slice(error, [0], [0], [count - 1]), g.slice(error, [0], [1], [count]))
        return g.mul(g.sum_all(products), 1.0 / (count - 1))

    def _relations(self, g: Emitter, x: Tensor) -> Tensor:
        """The series by Horner's rule, from the highest power."""
        rows = unit(g, x, [1])
        cosines = g.gemm(rows, rows, trans_b=True)
        twice = 2 * self.params.gamma
        series = g.constant(np.ones(cosines.shape))
        for power in reversed(range(1, self.params.order + 1)):
            series = g.add(g.mul(g.mul(cosines, twice / power), series), 1.0)
        return g.mul(series, exp(-twice))
