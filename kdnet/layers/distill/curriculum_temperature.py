"""CurriculumTemperatureDistillation: a temperature that is trained against the student."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Weight, layer
from kdnet.layers.distill.soft_targets import SoftTargetLoss, times
from kdnet.schema import kdnet_pb2 as pb


@layer(
    "CurriculumTemperatureDistillation",
    params="curriculum_temperature_distillation_param",
    bottoms=2,
)
class CurriculumTemperatureDistillation(SoftTargetLoss):
    """Divergence at a temperature that learns to make the student's task harder.

        T = minimum + range · σ(θ)
        p = softmax(z_t / T),  q = softmax(z_s / T)
        L = T²/Z · Σ_n Σ_k p[n, k] · ln(p[n, k] / q[n, k])

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1: the teacher's logits
        θ    (1)              weight 0, trained, gone from what is exported
        L    ()               top 0
    Parameters: minimum (1) and range (20), positive, reversal λ (1), not negative, all of which
        may be scheduled; filler of θ (constant 1); axis (1); loss_param: normalization (VALID):
        Z is the number of predictions N·M (FULL, VALID), N (BATCH_SIZE) or 1 (NONE). The
        curriculum is a cosine schedule of reversal from 0 to 1: the authors' takes 10 epochs, with
        a loss_weight of 0.9 and 0.1 for the loss of the labels.
    Gradient: from the op rules, T/Z · (q − p) to the student; θ gets −λ times its own, p's
        included, so that what lowers the loss for the student is raised by the temperature. The
        teacher gets none.
    Differs from Caffe: the layer is kdnet's own.
    Faults: minimum or range that is not positive; a negative reversal; logits of different
        shapes; axis out of range; ignore_label, since there are no labels.
    Source: Li et al. 2023, "Curriculum Temperature for Knowledge Distillation", the global
        temperature; as zhengli97/CTKD 7d52522, models/temp_global.py and helper/loops.py.
    """

    def weights(self, _student: Tensor, _teacher: Tensor) -> list[Weight]:
        """The number behind the temperature."""
        one = pb.FillerParameter(type="constant", value=1.0)
        filler = self.params.filler if self.params.HasField("filler") else one
        return [Weight("temperature", (1,), filler)]

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Usable bounds, and logits that match."""
        self.check_positive("minimum", "range")
        self.check_weights("reversal")
        self.check_logits(student, teacher)
        self.refuse_ignored()

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, theta: Tensor) -> Tensor:
        """The divergence; θ's gradient is turned round on its way."""
        axis = self.axis(student, self.params.axis)
        reversed_theta = g.neg(times(g, theta, self.scalar(g, "reversal")))
        adversary = g.reshape(g.straight_through(theta, reversed_theta), ())
        width = times(g, g.sigmoid(adversary), self.scalar(g, "range"))
        temperature = g.add(width, self.scalar(g, "minimum"))
        log_q = g.log_softmax(g.div(student, temperature), axis)
        soft = g.div(g.stop_gradient(teacher), temperature)
        apart = g.mul(g.softmax(soft, axis), g.sub(g.log_softmax(soft, axis), log_q))
        loss = self.over_predictions(g, apart, student)
        return g.mul(loss, g.square(temperature))
