"""Soft targets made from the label alone: label smoothing and the virtual teacher."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import SoftTargetLoss


class MadeTargets(SoftTargetLoss):
    """A loss whose targets are one number at the label's class and another elsewhere."""

    roles = ("logits", "label")

    def check_targets(self, logits: Tensor, labels: Tensor) -> None:
        """A probability, a second class that gets the rest, and labels that fit."""
        correct = self.params.correct_probability
        self.require(
            0 < correct <= 1, at="correct_probability", say=f"must be in (0, 1], not {correct:g}"
        )
        self.check_logits(logits, classes=2)
        self.check_labelled(logits, labels)

    def shares(self, logits: Tensor) -> tuple[float, float]:
        """The probability of the label's class, and that of each other class."""
        classes = logits.shape[self.axis(logits, self.params.axis)]
        correct = float(self.params.correct_probability)
        return correct, (1 - correct) / (classes - 1)


@layer("LabelSmoothingCrossEntropy", params="label_smoothing_cross_entropy_param", bottoms=2)
class LabelSmoothingCrossEntropy(MadeTargets):
    """Cross entropy with labels that leave some probability to the other classes.

        u[k] = a where k = y, (1 − a) / (C − 1) elsewhere
        L = 1/Z · Σ_n Σ_k −u[k] · ln softmax(x[n])[k]

    Shapes:
        x  (N..., C, M...)  bottom 0; the class axis is ``axis``
        y  (N..., M...)     bottom 1; any shape with as many elements and the same first axis
        L  ()               top 0
    Parameters: correct_probability a (0.9), in (0, 1]; axis (1); loss_param: ignore_label (none),
        normalization (VALID): Z is the number of predictions (FULL), of those not ignored
        (VALID), N (BATCH_SIZE) or 1 (NONE); at least 1
    Gradient: from the op rules, (softmax(x) − u) / Z.
    Differs from Caffe: the layer is kdnet's own. A smoothing ε that is spread over all C classes,
        as in PyTorch, is a = 1 − ε + ε/C.
    Faults: a probability out of range; a single class; labels that do not fit; axis out of range.
    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; as
        yuanli2333/Teacher-free-Knowledge-Distillation d000ab3, my_loss_function.py.
    """

    def check(self, logits: Tensor, labels: Tensor) -> None:
        """A usable probability and labels."""
        self.check_targets(logits, labels)

    def emit(self, g: Emitter, logits: Tensor, labels: Tensor) -> Tensor:
        """−Σ u·ln q."""
        axis = self.axis(logits, self.params.axis)
        found = self.labelled(g, logits, labels)
        correct, other = self.shares(logits)
        u = g.where(found.hit, g.constant(correct), other)
        terms = g.reduce_sum(g.mul(u, g.log_softmax(logits, axis)), [axis])
        return self.over_predictions(g, terms, logits, ignored=found.ignored, factor=-1.0)


@layer(
    "TeacherFreeKnowledgeDistillation",
    params="teacher_free_knowledge_distillation_param",
    bottoms=2,
)
class TeacherFreeKnowledgeDistillation(MadeTargets):
    """Divergence from a virtual teacher that is nearly sure of the label.

        u[k] = a where k = y, (1 − a) / (C − 1) elsewhere
        p = softmax(u / T),  q = softmax(x)
        L = 1/(Z·C) · Σ_n Σ_k p[k] · ln(p[k] / q[n, k])

    Shapes:
        x  (N..., C, M...)  bottom 0; the class axis is ``axis``
        y  (N..., M...)     bottom 1; any shape with as many elements and the same first axis
        L  ()               top 0
    Parameters: correct_probability a (0.99), in (0, 1]; temperature T (20), positive, of the
        virtual teacher alone, and may be scheduled; axis (1); loss_param: ignore_label (none),
        normalization (VALID): Z is the number of predictions (FULL), of those not ignored
        (VALID), N (BATCH_SIZE) or 1 (NONE); at least 1. The authors' ResNet-18 on CIFAR-100 has
        loss_weight 10 (0.1 times 100, which undoes the division by C) and 0.9 for the loss of the
        labels.
    Gradient: from the op rules, (q − p) / (Z·C). There is no T²: the student has no temperature.
    Differs from Caffe: the layer is kdnet's own.
    Faults: a probability out of range; a temperature that is not positive; a single class; labels
        that do not fit; axis out of range.
    Source: Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing
        Regularization" (Tf-KD_reg); as
        yuanli2333/Teacher-free-Knowledge-Distillation d000ab3, my_loss_function.py.
    """

    def check(self, logits: Tensor, labels: Tensor) -> None:
        """A usable probability, temperature and labels."""
        self.check_positive("temperature")
        self.check_targets(logits, labels)

    def emit(self, g: Emitter, logits: Tensor, labels: Tensor) -> Tensor:
        """Σ p·(ln p − ln q), where p has but two values."""
        axis = self.axis(logits, self.params.axis)
        found = self.labelled(g, logits, labels)
        at_label, elsewhere = self._log_teacher(g, logits)
        log_p = g.where(found.hit, at_label, elsewhere)
        apart = g.mul(g.exp(log_p), g.sub(log_p, g.log_softmax(logits, axis)))
        terms = g.reduce_sum(apart, [axis])
        factor = 1.0 / logits.shape[axis]
        return self.over_predictions(g, terms, logits, ignored=found.ignored, factor=factor)

    def _log_teacher(self, g: Emitter, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The virtual teacher's log-probability of the label's class and of each other one."""
        others = logits.shape[self.axis(logits, self.params.axis)] - 1
        correct, other = self.shares(logits)
        lead = g.div(g.constant(correct - other), self.scalar(g, "temperature"))
        # Σ over the classes, in units of one of the others: e^lead + (C − 1).
        elsewhere = g.neg(g.log(g.add(g.exp(lead), g.constant(np.float64(others)))))
        return g.add(lead, elsewhere), elsewhere
