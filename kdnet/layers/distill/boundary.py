"""ActivationBoundary: on which side of 0 each hidden unit of a teacher lies."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.blocks import ConnectorLoss


@layer("ActivationBoundary", params="activation_boundary_param", bottoms=2)
class ActivationBoundary(ConnectorLoss):
    """Squared hinge that puts the student's units on the teacher's side of 0 (AB).

        L = 1/N · Σ_i  max(r(s)[i] + m, 0)²  where t[i] ≤ 0
                       min(r(s)[i] − m, 0)²  where t[i] > 0

    with the projector r where the channels differ. Both bottoms are features before their ReLU.

    Shapes:
        s  (N, C_s, ...)       bottom 0: the student's features
        t  (N, C_t, ...)       bottom 1: the teacher's
        w  (C_t, C_s, 1...)    weight 0, "projector/weight", where there is a projector; then its
                               "projector/scale" and "projector/shift" (C_t)
        L  ()                  top 0
    Parameters: margin m (1), positive, schedulable; projector as for Hint, but with bias_term
        (false), batch_norm (true) and weight_filler (normal, variance 2/C_t); spatial as for Hint
    Gradient: from the op rules, to the student and the projector; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 0.003 for the
        deepest pair of features and half of that for each one before; the authors train with
        these losses alone first, and then without them.
    Faults: a margin that is not positive; else as Hint.
    Source: Heo et al. 2019, "Knowledge Transfer via Distillation of Activation Boundaries Formed
        by Hidden Neurons", equation 4; value as bhheo/AB_distillation criterion_alternative_L2
        over the batch size.
    """

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """A usable margin, and features that match."""
        margin = self.params.margin
        self.require(
            0 < margin < float("inf"), at="margin", say=f"must be positive, not {margin:g}"
        )
        super().check(student, teacher)

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The hinge of either side, squared."""
        margin = self.scalar(g, "margin")
        above = g.maximum(g.add(student, margin), 0.0)
        below = g.minimum(g.sub(student, margin), 0.0)
        wrong = g.where(g.greater(teacher, 0.0), below, above)
        return g.mul(g.sum_all(g.square(wrong)), 1.0 / student.shape[0])
