"""ChannelWiseDistillation: where each channel of a feature is active."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.features import FeatureLoss


@layer("ChannelWiseDistillation", params="channel_wise_distillation_param", bottoms=2)
class ChannelWiseDistillation(FeatureLoss):
    """Divergence between the distributions that each channel has over its places (CWD).

        p[n, c] = softmax_i(t[n, c, i] / T),  q[n, c] = softmax_i(r(s)[n, c, i] / T)
        L = T²/(N·C) · Σ_n Σ_c Σ_i p · (ln p − ln q)

    with the projector r where the channels differ.

    Shapes:
        s  (N, C_s, X...)  bottom 0: the student's features or class maps
        t  (N, C, X...)    bottom 1: the teacher's
        L  ()              top 0
    Parameters: temperature T (4), positive, schedulable; projector and spatial as for Hint
    Gradient: from the op rules, T/(N·C) · (q − p) to r(s); the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 3 for class maps
        and 50 for features, with projector { batch_norm: true bias_term: false relu: true }.
    Faults: a temperature that is not positive; features without spatial axes; else as Hint.
    Source: Shu et al. 2021, "Channel-wise Knowledge Distillation for Dense Prediction",
        equations 3 to 5; value as irfanICMLL/TorchDistiller CriterionCWD ("channel", "kl").
    """

    needs_maps = True

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """A usable temperature, and maps that match."""
        temperature = self.params.temperature
        self.require(
            0 < temperature < float("inf"),
            at="temperature",
            say=f"must be positive, not {temperature:g}",
        )
        super().check(student, teacher)

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """Rows of places, their log-probabilities, and the divergence."""
        temperature = self.scalar(g, "temperature")
        rows = (*student.shape[:2], prod(student.shape[2:]))
        log_q = g.log_softmax(g.div(g.reshape(student, rows), temperature), 2)
        log_p = g.log_softmax(g.div(g.reshape(teacher, rows), temperature), 2)
        total = g.sum_all(g.mul(g.exp(log_p), g.sub(log_p, log_q)))
        return g.mul(g.mul(total, 1.0 / prod(rows[:2])), g.square(temperature))
