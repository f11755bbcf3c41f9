"""FeatureOverhaul: a partial distance between features before their ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Weight, layer
from kdnet.layers.distill.blocks import ConnectorLoss

# Below this share of negative values their mean is not computed but taken as −3 deviations.
RARE = 0.001


@layer("FeatureOverhaul", params="feature_overhaul_param", bottoms=2)
class FeatureOverhaul(ConnectorLoss):
    """Squared distance to the teacher where it is active or the student is above it (OFD).

        u = max(t, m)
        L = 1/N · Σ_i (r(s)[i] − u[i])² · [r(s)[i] > u[i] or u[i] > 0]

    with the projector r and a margin m < 0 for each channel: ``margin``, or what a normal
    variable of the mean β and deviation |γ| is on average where it is negative,

        m = β − |γ| · φ(β/γ) / Φ(−β/|γ|),  −3·|γ| where Φ(−β/|γ|) ≤ 0.001

    with γ and β the scale and shift of the teacher's batch normalisation
    (``batch_norm_margin``), or else the mean of t's negative values in the batch. Both bottoms
    are features before their ReLU.

    Shapes:
        s     (N, C_s, ...)      bottom 0: the student's features
        t     (N, C_t, ...)      bottom 1: the teacher's
        w     (C_t, C_s, 1...)   weight 0, "projector/weight"; then its "projector/scale" and
                                 "projector/shift" (C_t)
        γ, β  (C_t)              the last two weights, with ``batch_norm_margin``: not trained
                                 here, and shared with the teacher's Scale layer by the names in
                                 both layers' param
        L     ()                 top 0
    Parameters: margin, below 0, once or for each channel; batch_norm_margin (false); projector as
        for Hint, but with type (CONVOLUTION, of vectors INNER_PRODUCT), bias_term (false),
        batch_norm (true) and weight_filler (normal, variance 2/C_t); spatial as for Hint
    Gradient: from the op rules, to the student and the projector; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 0.001 for the
        deepest pair of features and half of that for each one before. The margins by the batch
        are the paper's words, the authors' code has those of the batch normalisation.
    Faults: a margin that is not below 0, or given for another number of channels; margins given
        in two ways; γ or β that no earlier layer shares; else as Hint.
    Source: Heo et al. 2019, "A Comprehensive Overhaul of Feature Distillation", equations 1 to 4;
        value as clovaai/overhaul-distillation distillation_loss over the batch size, and as
        megvii-research/mdistiller OFD.
    """

    always_projects = True

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Usable margins, and features that match."""
        margins = self.params.margin
        for index, margin in enumerate(margins):
            at = f"margin.{index}"
            self.require(-float("inf") < margin < 0, at=at, say=f"must be below 0, not {margin:g}")
        super().check(student, teacher)
        channels = teacher.shape[1]
        say = f"given {len(margins)} times; once, or once for each of {channels} channels"
        self.require(len(margins) in (0, 1, channels), at="margin.0", say=say)
        both = bool(margins) and self.params.batch_norm_margin
        self.require(not both, at="batch_norm_margin", say="margin is given too")

    def weights(self, student: Tensor, teacher: Tensor) -> list[Weight]:
        """The projector's, then the teacher's scale and shift."""
        found = self.projector_weights(student, teacher)
        if self.params.batch_norm_margin:
            shape = (teacher.shape[1],)
            found += [Weight(name, shape, borrowed=True) for name in ("scale", "shift")]
        return found

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, *weights: Tensor) -> Tensor:
        """Raise the teacher to the margin, then compare where it counts."""
        own = len(weights) - 2 * self.params.batch_norm_margin
        s, t = self.matched(g, student, teacher, weights[:own])
        return self.compare(g, s, g.maximum(t, self._margin(g, t, weights[own:])))

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance to a raised teacher, one-sided where that is not positive."""
        difference = g.sub(student, teacher)
        active = g.greater(teacher, 0.0)
        counted = g.where(active, difference, g.maximum(difference, 0.0))
        return g.mul(g.sum_all(g.square(counted)), 1.0 / student.shape[0])

    def _margin(self, g: Emitter, t: Tensor, statistics: Sequence[Tensor]) -> Tensor:
        """A margin for each channel, of t's rank."""
        spread = (t.shape[1], *[1] * (t.rank - 2))
        if statistics:
            scale, shift = (g.stop_gradient(x) for x in statistics)
            return g.reshape(_negative_mean(g, scale, shift), spread)
        if self.params.margin:
            given = np.array(self.params.margin)
            return g.constant(np.broadcast_to(given, t.shape[1]).reshape(spread))
        axes = [axis for axis in range(t.rank) if axis != 1]
        total = g.reduce_sum(g.minimum(t, 0.0), axes, keepdims=True)
        count = g.reduce_sum(g.where(g.less(t, 0.0), 1.0, 0.0), axes, keepdims=True)
        return g.div(total, g.maximum(count, 1.0))


def _negative_mean(g: Emitter, scale: Tensor, shift: Tensor) -> Tensor:
    """The mean of a normal variable's negative values: that of its tail below 0."""
    deviation = g.abs(scale)
    ratio = g.div(shift, deviation)
    density = g.mul(g.exp(g.mul(g.square(ratio), -0.5)), 1 / sqrt(2 * pi))
    share = g.mul(g.sub(1.0, g.op("Erf", g.mul(ratio, sqrt(0.5)))), 0.5)
    common = g.greater(share, RARE)
    mean = g.sub(shift, g.div(g.mul(deviation, density), g.where(common, share, 1.0)))
    return g.where(common, mean, g.mul(deviation, -3.0))
