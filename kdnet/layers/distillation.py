"""TeacherStudentCrossEntropy: the loss that joins a student to its teacher."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.normalization import LossLayer


@layer("TeacherStudentCrossEntropy", params="teacher_student_cross_entropy_param", bottoms=2)
class TeacherStudentCrossEntropy(LossLayer):
    """Cross entropy between the softened class probabilities of teacher and student.

        p = softmax(z_t / T),  q = softmax(z_s / T)
        L = T²/Z · Σ_n Σ_k −p[n, k] · ln q[n, k]

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1: the teacher's logits
        L    ()               top 0
    Parameters: temperature T (1), positive; scale_by_t2 (true) keeps the size of the gradient
        when T changes; axis (1); loss_param: normalization (VALID): Z is the number of
        predictions N·M (FULL, VALID), N (BATCH_SIZE) or 1 (NONE)
    Gradient: from the op rules, T/Z · (q − p) to the student; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. It takes logits, not probabilities.
    Faults: a temperature that is not positive; bottoms of different shapes; axis out of range;
        ignore_label, since there are no labels.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network",
        equations 2 to 4 and section 2.
    """

    roles = ("student logits", "teacher logits")

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """A usable temperature, and logits that match."""
        temperature = self.params.temperature
        self.require(
            0 < temperature < float("inf"),
            at="temperature",
            say=f"must be positive, not {temperature:g}",
        )
        self.axis(student, self.params.axis)
        self.require_shape(
            student.shape == teacher.shape,
            bottom=1,
            say=f"teacher logits of shape {teacher.shape} for student logits of shape "
            f"{student.shape}",
            help="both bottoms must have the same shape",
        )
        if self.ignore is not None:
            span = self.model.source.span(("loss_param", "ignore_label"))
            self.fail("bad-parameter", "ignore_label: the layer reads no labels", span)

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """−Σ p·ln q with the teacher's side constant."""
        temperature = self.params.temperature
        axis = self.axis(student, self.params.axis)
        p = g.softmax(g.mul(g.stop_gradient(teacher), 1.0 / temperature), axis)
        log_q = g.log_softmax(g.mul(student, 1.0 / temperature), axis)
        return self.normalized(
            g,
            g.sum_all(g.mul(p, log_q)),
            positions=student.size // student.shape[axis],
            items=prod(student.shape[:axis]),
            factor=-(temperature**2) if self.params.scale_by_t2 else -1.0,
        )
