"""KnowledgeDistillation and SoftmaxWithCrossEntropyLoss: soft targets as forks write them."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import SoftTargetLoss, softened, times_t2


def divergence(
    loss: SoftTargetLoss,
    g: Emitter,
    student: Tensor,
    teacher: Tensor,
    temperature: Tensor,
    ignored: Tensor | None = None,
) -> Tensor:
    """The KL divergence of each prediction that counts, over their number."""
    axis = loss.axis(student, loss.class_axis)
    log_q = g.log_softmax(softened(g, student, temperature), axis)
    log_p = g.log_softmax(softened(g, g.stop_gradient(teacher), temperature), axis)
    terms = g.reduce_sum(g.mul(g.exp(log_p), g.sub(log_p, log_q)), [axis])
    return loss.over_predictions(g, terms, student, ignored=ignored)


@layer("KnowledgeDistillation", params="knowledge_distillation_param", bottoms=(2, 3))
class KnowledgeDistillation(SoftTargetLoss):
    """Divergence of the student's softened class probabilities from those of its teacher.

        p = softmax(z_t / T),  q = softmax(z_s / T)
        L = T²/Z · Σ_n Σ_k p[n, k] · ln(p[n, k] / q[n, k])

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is softmax_param's
        z_t  (N..., C, M...)  bottom 1: the teacher's
        t    (N..., M...)     bottom 2, with ignore_label: predictions with this label add nothing
        L    ()               top 0
    Parameters: temperature T (1), positive, schedulable; softmax_param: axis (1); loss_param:
        ignore_label, with a third bottom; normalization (VALID), as of SoftmaxWithLoss
    Gradient: from the op rules, T/Z · (q − p) to the student's logits, as in the fork. The
        teacher gets none.
    Differs from Caffe: the layer is of a fork, which prints L/T² and trains by the gradient of L.
        Here the value is that of L, so value and gradient agree. TeacherStudentCrossEntropy with
        divergence KL is the same, and takes several teachers.
    Faults: a temperature that is not positive; bottoms of different shapes; axis out of range;
        ignore_label without labels, or labels without it.
    Source: wentianli/knowledge_distillation_caffe; Hinton, Vinyals, Dean 2015.
    """

    roles = ("student logits", "teacher logits", "label")

    @property
    def class_axis(self) -> int:
        """Where the classes are, as softmax_param says."""
        return self.model.message.softmax_param.axis

    def axis(self, x: Tensor, axis: int, *, at: str = "axis", end: bool = False) -> int:
        """As any layer's, but a fault stands in softmax_param."""
        if not -x.rank <= axis < x.rank:
            text = f"axis: {axis} is outside the bottom's shape {x.shape}"
            self.fail("bad-parameter", text, self.model.source.span(("softmax_param", "axis")))
        return super().axis(x, axis, at=at, end=end)

    def check(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> None:
        """A usable temperature, logits that match, and a label for each prediction or none."""
        self.check_positive("temperature")
        self.check_logits(student, teacher)
        if labels is None:
            self.refuse_ignored()
            return
        if self.ignore is None:
            text = "labels are of use only with loss_param { ignore_label }"
            self.fail("bad-parameter", text, self.model.source.span(("bottom", 2)))
        self.check_labelled(student, labels)

    def emit(
        self, g: Emitter, student: Tensor, teacher: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The divergence, times the temperature's square."""
        temperature = self.scalar(g, "temperature")
        ignored = None if labels is None else self.labelled(g, student, labels).ignored
        loss = divergence(self, g, student, teacher, temperature, ignored)
        return times_t2(g, loss, temperature)


@layer("SoftmaxWithCrossEntropyLoss", params="softmax_param", bottoms=2, tops=(1, 2))
class SoftmaxWithCrossEntropyLoss(SoftTargetLoss):
    """Divergence of the student's class probabilities from those of its teacher.

        p = softmax(z_t),  q = softmax(z_s)
        L = 1/Z · Σ_n Σ_k p[n, k] · ln(p[n, k] / q[n, k])

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is softmax_param's
        z_t  (N..., C, M...)  bottom 1: the teacher's
        L    ()               top 0
        q    as z_s           top 1, optional: the student's probabilities
    Parameters: softmax_param: axis (1); loss_param: normalize (true): Z is the number of
        predictions, or N where it is false; normalization too, as of SoftmaxWithLoss
    Gradient: from the op rules, (q − p) / Z to the student's logits. The teacher gets none.
    Differs from Caffe: nothing; the layer is of a fork, whose nets soften both bottoms by Power
        layers before it. No factor T² makes up for that there; loss_weight can.
    Faults: bottoms of different shapes; axis out of range; ignore_label, since there are no
        labels.
    Source: yjxiong/caffe, branch kd, softmax_cross_entropy_loss_layer; used by
        wanglimin/MRCNN-Scene-Recognition.
    """

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Logits that match."""
        self.check_logits(student, teacher)
        self.refuse_ignored()

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor) -> tuple[Tensor, ...]:
        """The divergence, and the probabilities where they are asked for."""
        loss = divergence(self, g, student, teacher, g.constant(1.0))
        if len(self.model.tops) == 1:
            return (loss,)
        return loss, g.softmax(student, self.axis(student, self.class_axis))
