"""WeightedSoftLabelDistillation: less of the teacher where the student knows the label better."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import SoftTargetLoss, softened, times_t2
from kdnet.layers.labels import Labels

EPS = 1e-7


@layer(
    "WeightedSoftLabelDistillation",
    params="weighted_soft_label_distillation_param",
    bottoms=3,
)
class WeightedSoftLabelDistillation(SoftTargetLoss):
    """Cross entropy of softened probabilities, weighed by how much worse the student does.

        p = softmax(z_t / T),  q = softmax(z_s / T),  y the label
        w = 1 − exp(−CE(z_s, y) / (CE(z_t, y) + 1e-7)),  CE(z, y) = −ln softmax(z)[y]
        L = T²/Z · Σ_n w[n] · Σ_k −p[n, k] · ln q[n, k]

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1: the teacher's logits
        y    (N..., M...)     bottom 2; any shape with as many elements and the same first axis
        L    ()               top 0
    Parameters: temperature T (2), positive, may be scheduled; axis (1); loss_param: ignore_label
        (none), normalization (VALID): Z is the number of predictions (FULL), of those not
        ignored (VALID), N (BATCH_SIZE) or 1 (NONE); at least 1. The authors' loss_weight is 2.5
        on ImageNet, beside the loss of the labels.
    Gradient: T/Z · w · (q − p) to the student alone. The weight w is a constant, though it
        depends on the student: the method says so.
    Differs from Caffe: the layer is kdnet's own.
    Faults: a temperature that is not positive; logits of different shapes; labels that do not fit;
        axis out of range.
    Source: Zhou et al. 2021, "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
        Tradeoff Perspective"; as
        bellymonster/Weighted-Soft-Label-Distillation 67820dd, knowledge_distiller.py.
    """

    roles = ("student logits", "teacher logits", "label")

    def check(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """A usable temperature, logits that match, and labels."""
        self.check_positive("temperature")
        self.check_logits(student, teacher)
        self.check_labelled(student, labels)

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy of each prediction times its constant weight."""
        axis = self.axis(student, self.params.axis)
        temperature = self.scalar(g, "temperature")
        found = self.labelled(g, student, labels)
        z_t = g.stop_gradient(teacher)
        p = g.softmax(softened(g, z_t, temperature), axis)
        log_q = g.log_softmax(softened(g, student, temperature), axis)
        crossed = g.reduce_sum(g.mul(p, log_q), [axis])
        gains = [self._log_at_label(g, z, found) for z in (g.stop_gradient(student), z_t)]
        ratio = g.div(gains[0], g.sub(gains[1], EPS))
        weight = g.sub(1.0, g.exp(g.neg(ratio)))
        terms = g.mul(weight, crossed)
        loss = self.over_predictions(g, terms, student, ignored=found.ignored, factor=-1.0)
        return times_t2(g, loss, temperature)

    def _log_at_label(self, g: Emitter, logits: Tensor, found: Labels) -> Tensor:
        axis = self.axis(logits, self.params.axis)
        return g.reduce_sum(g.where(found.hit, g.log_softmax(logits, axis), 0.0), [axis])
