"""Distances of features: Hint, L2Distance, CosineDistance."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.features import FeatureLoss, length, mean_all, mean_square, unit

COSINE_EPS = 1e-8


@layer("Hint", params="hint_param", bottoms=2)
class Hint(FeatureLoss):
    """Mean squared distance of the student's projected features to the teacher's (FitNets).

        L = mean (r(s) − t)²

    with the projector r, trained with the student.

    Shapes:
        s  (N, C_s, ...)       bottom 0: the student's features
        t  (N, C_t, ...)       bottom 1: the teacher's features
        w  (C_t, C_s, 1...)    weight 0, "projector/weight", where there is a projector
        b  (C_t)               weight 1, "projector/bias"
        L  ()                  top 0
    Parameters: projector: type (AUTO: where C_s ≠ C_t, a 1x1 convolution of maps or an inner
        product of vectors), weight_filler (xavier, with relu msra), bias_term (true), batch_norm
        (false) by the batch's statistics in both phases, with weights "projector/scale" and
        "projector/shift", relu (false); spatial (AUTO: the larger map is averaged down to the
        smaller, before the projector)
    Gradient: from the op rules, to the student and the projector; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 100, with
        projector { batch_norm: true relu: true }. RepDistiller and mdistiller make maps of
        different size fit with a convolution of the student's instead of averages.
    Faults: batches of different sizes; features that do not match with projector or spatial
        NONE; INNER_PRODUCT of maps; CONVOLUTION of vectors.
    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3; value as
        HobbitLong/RepDistiller HintLoss.
    """

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean square."""
        return mean_square(g, student, teacher)


@layer("L2Distance", params="l2_distance_param", bottoms=2)
class L2Distance(FeatureLoss):
    """Euclidean distance of each item's features to the teacher's, averaged over the batch.

        L = 1/N · Σ_n |s[n] − t[n]|²

    with ``squared`` false |s[n] − t[n]|; with ``normalize`` of s[n]/|s[n]| and t[n]/|t[n]|.

    Shapes:
        s  (N, C_s, ...)  bottom 0: the student's features
        t  (N, C_t, ...)  bottom 1: the teacher's features
        L  ()             top 0
    Parameters: squared (true); normalize (false); projector and spatial as for Hint
    Gradient: from the op rules, to the student and the projector; the teacher gets none. That of
        a distance of 0 is 0.
    Differs from Caffe: the layer is kdnet's own. EuclideanLoss is half of it, for equal shapes
        and with a gradient to both bottoms. A length of at most 1e-12 counts as 0.
    Faults: as Hint.
    Source: open-mmlab/mmrazor L2Loss, whose dist: true takes the root of the whole sum.
    """

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over the batch of the squares, or of their roots."""
        axes = range(1, student.rank)
        if self.params.normalize:
            student, teacher = unit(g, student, axes), unit(g, teacher, axes)
        difference = g.sub(student, teacher)
        if not self.params.squared:
            return mean_all(g, length(g, difference, axes))
        return g.mul(g.sum_all(g.square(difference)), 1.0 / student.shape[0])


@layer("CosineDistance", params="cosine_distance_param", bottoms=2)
class CosineDistance(FeatureLoss):
    """One minus the cosine of the angle between the channels of student and teacher.

        L = mean over n and places p of 1 − s[n, :, p]·t[n, :, p] / (|s[n, :, p]|·|t[n, :, p]|)

    Shapes:
        s  (N, C_s, ...)  bottom 0: the student's features
        t  (N, C_t, ...)  bottom 1: the teacher's features
        L  ()             top 0
    Parameters: projector and spatial as for Hint
    Gradient: from the op rules, to the student and the projector; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. A vector no longer than 1e-8 has cosine 0 and
        gradient 0. For one angle an item, put Flatten before it.
    Faults: as Hint.
    Source: torch.nn.functional.cosine_similarity over the channels, subtracted from 1.
    """

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The product of unit vectors, from 1."""
        product = g.mul(unit(g, student, [1], COSINE_EPS), unit(g, teacher, [1], COSINE_EPS))
        places = student.size // student.shape[1]
        return g.sub(1.0, g.mul(g.sum_all(product), 1.0 / places))
