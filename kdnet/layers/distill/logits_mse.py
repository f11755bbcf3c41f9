"""LogitsMSE: the student's logits follow the teacher's."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.normalization import LossLayer


@layer("LogitsMSE", bottoms=2)
class LogitsMSE(LossLayer):
    """Mean squared difference between the logits of student and teacher.

        L = 1/Z · Σ_i (z_s[i] − z_t[i])²

    Shapes:
        z_s  (N, ...)  bottom 0: the student's logits
        z_t  (N, ...)  bottom 1: the teacher's logits
        L    ()        top 0
    Parameters: loss_param: normalization (VALID): Z is the number of logits (FULL, VALID),
        N (BATCH_SIZE) or 1 (NONE)
    Gradient: from the op rules, 2/Z · (z_s − z_t) to the student; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. EuclideanLoss divides by 2N instead, and its
        gradient reaches both bottoms.
    Faults: bottoms of different shapes; a number for a bottom; ignore_label, since there are no
        labels.
    Source: Ba, Caruana 2014, "Do Deep Nets Really Need to be Deep?", equation 1; as PyTorch's
        MSELoss.
    """

    roles = ("student logits", "teacher logits")

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Logits that match."""
        self.require_shape(student.rank > 0, bottom=0, say="a single number has no batch axis")
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
        """The sum of squared differences, divided."""
        difference = g.sub(student, g.stop_gradient(teacher))
        total = g.sum_all(g.square(difference))
        return self.normalized(g, total, positions=student.size, items=student.shape[0])
