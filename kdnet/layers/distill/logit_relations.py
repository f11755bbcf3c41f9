"""DIST and MultiLevelLogitDistillation: relations between classes and between items."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import (
    SoftTargetLoss,
    root,
    softened,
    standardized,
    times,
    times_t2,
)

EPS = 1e-8
AUTHORS_TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)


@layer("DIST", params="dist_param", bottoms=2)
class DIST(SoftTargetLoss):
    """One minus the correlation of student and teacher, over classes and over items.

        P = softmax(z_t / T),  Q = softmax(z_s / T), matrices of predictions by classes
        ρ(a, b) = Σ ā·b̄ / (‖ā‖·‖b̄‖ + 1e-8),  ā = a − mean(a)
        L = T² · (beta · (1 − mean_n ρ(Q[n, :], P[n, :]))
                + gamma · (1 − mean_k ρ(Q[:, k], P[:, k])))

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1: the teacher's logits
        L    ()               top 0
    Parameters: beta (1) and gamma (1), not negative; temperature T (1), positive; axis (1). All
        but axis may be scheduled. The authors' loss_weight is 2 beside the loss of the labels,
        with T = 4 on CIFAR-100 and T = 1 on ImageNet.
    Gradient: from the op rules, to the student alone. A student that gives all classes, or all
        items, the same probability has ‖ā‖ = 0, and its gradient is 10⁸ times larger: do not
        fill the last layer with zeros.
    Differs from Caffe: the layer is kdnet's own.
    Faults: a temperature that is not positive; a negative weight; logits of different shapes;
        axis out of range; a loss_param: the loss is a mean of correlations.
    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher"; as
        hunto/image_classification_sota 6f7a70a, lib/models/losses/dist_kd.py.
    """

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Weights that weigh, and logits that match."""
        self.check_positive("temperature")
        self.check_weights("beta", "gamma")
        self.check_logits(student, teacher)
        self.refuse_ignored()
        self.refuse_normalization("a mean of correlations")

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """Both correlations of the matrices of probabilities."""
        axis = self.axis(student, self.params.axis)
        temperature = self.scalar(g, "temperature")
        q = _by_class(g, g.softmax(softened(g, student, temperature), axis), axis)
        soft = softened(g, g.stop_gradient(teacher), temperature)
        p = _by_class(g, g.softmax(soft, axis), axis)
        between = times(g, _uncorrelated(g, q, p, 1), self.scalar(g, "beta"))
        within = times(g, _uncorrelated(g, q, p, 0), self.scalar(g, "gamma"))
        return times_t2(g, g.add(between, within), temperature)


def _by_class(g: Emitter, scores: Tensor, axis: int) -> Tensor:
    """A matrix with a row for each prediction and a column for each class."""
    axes = [i for i in range(scores.rank) if i != axis]
    return g.reshape(g.transpose(scores, [*axes, axis]), (-1, scores.shape[axis]))


def _uncorrelated(g: Emitter, a: Tensor, b: Tensor, axis: int) -> Tensor:
    """1 − the mean of Pearson's correlations along an axis of two matrices."""
    a, b = (g.sub(x, g.reduce_mean(x, [axis], keepdims=True)) for x in (a, b))
    norms = [root(g, g.reduce_sum(g.square(x), [axis])) for x in (a, b)]
    scale = g.add(g.mul(*norms), EPS)
    correlations = g.div(g.reduce_sum(g.mul(a, b), [axis]), scale)
    return g.sub(1.0, g.reduce_mean(correlations, [0]))


@layer("MultiLevelLogitDistillation", params="multi_level_logit_distillation_param", bottoms=2)
class MultiLevelLogitDistillation(SoftTargetLoss):
    """Soft targets, and the products of their probabilities over items and over classes.

        P = softmax(z_t / T),  Q = softmax(z_s / T), matrices of N items by C classes
        L = Σ_T instance_weight · m · T²/N · Σ_nk P·ln(P / Q)
                + batch_weight  · m · ‖P·Pᵀ − Q·Qᵀ‖² / N
                + class_weight  · c · ‖Pᵀ·P − Qᵀ·Q‖² / C

    Shapes:
        z_s  (N, C, 1...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N, C, 1...)  bottom 1: the teacher's logits
        L    ()            top 0
    Parameters: temperature, one or more, positive (4, 3, 5, 2 and 6); instance_weight (1),
        batch_weight (1) and class_weight (1), not negative, which may be scheduled;
        confidence_mask (false): m is the share of items whose largest probability by the teacher
        is at most the median of the batch, c the share of classes whose probability summed over
        the batch is at most the median of the classes, both at temperature 1; else m = c = 1;
        standardize (false): the divergence alone takes logits standardised as in
        TeacherStudentCrossEntropy; axis (1). The authors' loss_weight is 0.9 on CIFAR-100 and
        0.5 on ImageNet, there with a first temperature of 1; with masks on images that are
        augmented weakly and, the divergence alone, without on those augmented strongly.
    Gradient: from the op rules, to the student alone; the masks are constants.
    Differs from Caffe: the layer is kdnet's own.
    Faults: a temperature that is not positive; a negative weight; logits of different shapes; more
        than one prediction an item; axis out of range; standardize with a single class; a
        loss_param: each level has its own divisor.
    Source: Jin, Wang, Lin 2023, "Multi-Level Logit Distillation"; as
        Jin-Ying/Multi-Level-Logit-Distillation 5ee473f, distillers/KD_ours.py, whose masks
        multiply means and so act through their share alone, and as
        sunshangquan/logit-standardization-KD f6e5aa5, distillers/MLKD.py.
    """

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Temperatures and weights that may be, and one vector of logits an item."""
        for index, value in enumerate(self.params.temperature):
            self.require(
                0 < value < float("inf"),
                at=f"temperature.{index}",
                say=f"must be positive, not {value:g}",
            )
        self.check_weights("instance_weight", "batch_weight", "class_weight")
        self.check_logits(student, teacher, classes=1 + self.params.standardize)
        classes = student.shape[self.axis(student, self.params.axis)]
        self.require_shape(
            student.size == student.shape[0] * classes,
            bottom=0,
            say=f"logits of shape {student.shape} are not one prediction an item",
            help="items are compared with each other: pool over space first",
        )
        self.refuse_ignored()
        self.refuse_normalization("a sum of levels with divisors of their own")

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """Each level summed over the temperatures, then weighed."""
        axis = self.axis(student, self.params.axis)
        z_s, z_t = (_by_class(g, z, axis) for z in (student, g.stop_gradient(teacher)))
        temperatures = [*self.params.temperature] or AUTHORS_TEMPERATURES
        levels = [self._levels(g, z_s, z_t, g.constant(value)) for value in temperatures]
        instance, batch, classes = (g.op("Sum", *level) for level in zip(*levels, strict=True))
        if self.params.confidence_mask:
            p = g.softmax(z_t, 1)
            items = _share_up_to_median(g, g.reduce_max(p, [1]))
            instance, batch = g.mul(instance, items), g.mul(batch, items)
            classes = g.mul(classes, _share_up_to_median(g, g.reduce_sum(p, [0])))
        weighed = [
            times(g, instance, self.scalar(g, "instance_weight")),
            times(g, batch, self.scalar(g, "batch_weight")),
            times(g, classes, self.scalar(g, "class_weight")),
        ]
        return g.op("Sum", *weighed)

    def _levels(
        self, g: Emitter, z_s: Tensor, z_t: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Instance, batch and class level at one temperature."""
        count, classes = z_s.shape
        soft_s, soft_t = softened(g, z_s, temperature), softened(g, z_t, temperature)
        q, p = g.softmax(soft_s, 1), g.softmax(soft_t, 1)
        across, within = _product(g, p, p, rows=True), _product(g, p, p, rows=False)
        batch = g.sub(across, _product(g, q, q, rows=True))
        classwise = g.sub(within, _product(g, q, q, rows=False))
        if self.params.standardize:
            soft_s, soft_t = (softened(g, standardized(g, z, 1), temperature) for z in (z_s, z_t))
            p = g.softmax(soft_t, 1)
        apart = g.mul(p, g.sub(g.log_softmax(soft_t, 1), g.log_softmax(soft_s, 1)))
        return (
            times_t2(g, g.mul(g.sum_all(apart), 1.0 / count), temperature),
            g.mul(g.sum_all(g.square(batch)), 1.0 / count),
            g.mul(g.sum_all(g.square(classwise)), 1.0 / classes),
        )


def _product(g: Emitter, a: Tensor, b: Tensor, *, rows: bool) -> Tensor:
    """``a·bᵀ``, products of rows, or ``aᵀ·b``, products of columns."""
    return g.gemm(a, b, trans_b=True) if rows else g.gemm(a, b, trans_a=True)


def _share_up_to_median(g: Emitter, values: Tensor) -> Tensor:
    """The share of a vector's entries that are at most its median.

    Those are the entries up to the lower of the two middle ones, so nothing is interpolated.
    """
    lower = (values.size + 1) // 2
    smallest, _ = g.multi("TopK", values, g.ints(lower), count=2, axis=0, largest=0)
    counted = g.op("LessOrEqual", values, g.reduce_max(smallest, [0]))
    return g.reduce_mean(g.cast(counted), [0])
