"""VariationalInformation: how likely the teacher's features are, given the student's."""

from __future__ import annotations

from math import expm1, log

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Weight, layer
from kdnet.layers.distill.features import FeatureLoss, mean_all, pointwise
from kdnet.schema import kdnet_pb2 as pb


@layer("VariationalInformation", params="variational_information_param", bottoms=2)
class VariationalInformation(FeatureLoss):
    """Negative log-likelihood of the teacher's features under a trained Gaussian (VID).

        L = mean ½ · ((m(s) − t)² / v + ln v),   v[c] = ln(1 + e^(a[c])) + eps
        m(s) = w3 · relu(w2 · relu(w1 · s)), each a 1x1 convolution

    Shapes:
        s   (N, C_s, ...)      bottom 0: the student's features
        t   (N, C_t, ...)      bottom 1: the teacher's features
        w1  (H, C_s, 1...)     weight 0, "regressor1/weight"; of vectors (H, C_s), and so on
        w2  (H, H, 1...)       weight 1, "regressor2/weight"
        w3  (C_t, H, 1...)     weight 2, "regressor3/weight"
        a   (C_t)              weight 3, "log_scale"
        L   ()                 top 0
    Parameters: hidden H (C_t); weight_filler (msra); initial_variance (5), which sets the first
        a; eps (1e-5); spatial (AUTO: the larger map is averaged down to the smaller)
    Gradient: from the op rules, to the student and all weights; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 1 for each of the
        pairs of features. It can be negative. mdistiller leaves a as it is; here, as in
        RepDistiller, it is trained unless its lr_mult is 0.
    Faults: batches of different sizes; other extents and spatial NONE; eps that is not positive;
        initial_variance that is not above eps.
    Source: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer";
        value as HobbitLong/RepDistiller VIDLoss.
    """

    same_channels = False

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Features that match, and a variance that can be."""
        eps, variance = self.params.eps, self.params.initial_variance
        self.require(0 < eps < float("inf"), at="eps", say=f"must be positive, not {eps:g}")
        fits = eps < variance < float("inf")
        say = f"{variance:g} must be above eps, which is {eps:g}"
        self.require(fits, at="initial_variance", say=say)
        self.check_pair(student, teacher)

    def weights(self, student: Tensor, teacher: Tensor) -> list[Weight]:
        """Three maps of channels and a scale for each of the teacher's."""
        s_shape, t_shape = self.aligned(student.shape, teacher.shape)
        hidden = self.params.hidden or t_shape[1]
        given = self.params.HasField("weight_filler")
        filler = self.params.weight_filler if given else pb.FillerParameter(type="msra")
        places = [1] * (len(t_shape) - 2)
        pairs = ((hidden, s_shape[1]), (hidden, hidden), (t_shape[1], hidden))
        found = [
            Weight(f"regressor{index}/weight", (*pair, *places), filler)
            for index, pair in enumerate(pairs, start=1)
        ]
        # The inverse of softplus, written so that it does not overflow.
        above = self.params.initial_variance - self.params.eps
        scale = pb.FillerParameter(type="constant", value=above + log(-expm1(-above)))
        return [*found, Weight("log_scale", t_shape[1:2], scale)]

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor, *weights: Tensor) -> Tensor:
        """The regressor's error over the variance, and the variance's logarithm."""
        *maps, log_scale = weights
        x = student
        for index, weight in enumerate(maps):
            x = pointwise(g, g.relu(x) if index else x, weight)
        variance = g.add(g.op("Softplus", log_scale), self.params.eps)
        spread = g.reshape(variance, (x.shape[1], *[1] * (x.rank - 2)))
        errors = g.div(g.square(g.sub(x, teacher)), spread)
        return mean_all(g, g.mul(g.add(errors, g.log(spread)), 0.5))
