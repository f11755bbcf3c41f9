"""DecoupledKnowledgeDistillation: what the teacher says of the target class, and of the others."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import (
    MASKED,
    SoftTargetLoss,
    softened,
    standardized,
    times,
    times_t2,
)


@layer(
    "DecoupledKnowledgeDistillation",
    params="decoupled_knowledge_distillation_param",
    bottoms=3,
)
class DecoupledKnowledgeDistillation(SoftTargetLoss):
    """Compare student and teacher on the target class and, apart from it, among the others.

        p = softmax(z_t / T),  q = softmax(z_s / T),  y the label
        p̂, q̂ the same softmax without class y
        TCKD = p[y] · ln(p[y] / q[y]) + (1 − p[y]) · ln((1 − p[y]) / (1 − q[y]))
        NCKD = Σ_{k≠y} p̂[k] · ln(p̂[k] / q̂[k])
        L = T²/Z · Σ_n alpha · TCKD[n] + beta · NCKD[n]

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1: the teacher's logits
        y    (N..., M...)     bottom 2; any shape with as many elements and the same first axis
        L    ()               top 0
    Parameters: alpha (1) and beta (8), not negative; temperature T (4), positive; axis (1);
        standardize (false): both logits are first standardised as in TeacherStudentCrossEntropy;
        loss_param: ignore_label (none), normalization (VALID): Z is the number of predictions
        (FULL), of those not ignored (VALID), N (BATCH_SIZE) or 1 (NONE); at least 1. alpha, beta
        and temperature may be scheduled. The authors let the loss grow over the first 20 epochs:
        a linear schedule of this layer's loss_weight from 0 to 1.
    Gradient: from the op rules, to the student alone. With alpha = 1 and beta replaced by each
        prediction's 1 − p[y] it is that of the cross entropy.
    Differs from Caffe: the layer is kdnet's own. Logarithms of 1 − q[y] stay finite where the
        authors' are not.
    Faults: a temperature that is not positive; a negative weight; logits of different shapes; a
        single class; labels that do not fit; axis out of range.
    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 5 to 7; as
        megvii-research/mdistiller a08d46f, distillers/DKD.py.
    """

    roles = ("student logits", "teacher logits", "label")

    def check(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Weights that weigh, logits that match, a class beside the target, and labels."""
        self.check_positive("temperature")
        self.check_weights("alpha", "beta")
        self.check_logits(student, teacher, classes=2)
        self.check_labelled(student, labels)

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Both divergences of each prediction, weighed."""
        axis = self.axis(student, self.params.axis)
        temperature = self.scalar(g, "temperature")
        found = self.labelled(g, student, labels)
        log_p, log_rest_p = self._logs(g, g.stop_gradient(teacher), temperature, found.hit)
        log_q, log_rest_q = self._logs(g, student, temperature, found.hit)

        apart = g.mul(g.exp(log_p), g.sub(log_p, log_q))
        at_label = g.reduce_sum(g.where(found.hit, apart, 0.0), [axis], keepdims=True)
        besides = g.mul(g.exp(log_rest_p), g.sub(log_rest_p, log_rest_q))
        target = g.add(at_label, besides)

        others_p, others_q = g.sub(log_p, log_rest_p), g.sub(log_q, log_rest_q)
        among = g.where(found.hit, 0.0, g.mul(g.exp(others_p), g.sub(others_p, others_q)))
        others = g.reduce_sum(among, [axis], keepdims=True)

        weighed = g.add(
            times(g, target, self.scalar(g, "alpha")), times(g, others, self.scalar(g, "beta"))
        )
        terms = g.reduce_sum(weighed, [axis])
        loss = self.over_predictions(g, terms, student, ignored=found.ignored)
        return times_t2(g, loss, temperature)

    def _logs(
        self, g: Emitter, logits: Tensor, temperature: Tensor, hit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """ln p[k] of each class, and ln(1 − p[y]) from the others, which does not cancel."""
        axis = self.axis(logits, self.params.axis)
        if self.params.standardize:
            logits = standardized(g, logits, axis)
        log_p = g.log_softmax(softened(g, logits, temperature), axis)
        others = g.where(hit, MASKED, log_p)
        return log_p, g.op("ReduceLogSumExp", others, g.ints(axis), keepdims=1)
