"""KnowledgeReview: fused features of a student against those of a teacher, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Weight, layer
from kdnet.layers.distill.blocks import (
    batch_normalised,
    constant,
    convolved,
    enlarged,
    within_fan,
)
from kdnet.layers.distill.features import average_to, mean_square
from kdnet.layers.normalization import LossLayer
from kdnet.schema import kdnet_pb2 as pb

LARGEST = 512
LEVELS = (4, 2, 1)
# Blobs of one level: two convolutions with their batch normalisation, and the attention's two.
BASE, FUSED = 6, 8


@layer("KnowledgeReview", params="knowledge_review_param", bottoms=(2, ANY))
class KnowledgeReview(LossLayer):
    """Fuse a student's features with deeper ones and compare them in pyramids (ReviewKD).

    From the deepest level k up to the first, with r the result of the level below,

        x = bn1(w1 ∗ s_i)                                    at level k, else
        x = x·a[0] + r·a[1],  a = σ(w3 ∗ concat(x, r) + b3)  with r enlarged to x
        r = x enlarged to t_i,  y_i = bn2(w2 ∗ r)

    and L = Σ_i HCL(y_i, t_i), where

        HCL(y, t) = (mse(y, t) + Σ_j 2⁻ʲ · mse(pool_j y, pool_j t)) / (1 + Σ_j 2⁻ʲ)

    with j counting the pools to 4x4, 2x2 and 1x1 that are smaller than t is high.

    Shapes:
        s_i  (N, A_i, H_i, W_i)  bottoms 0 to k − 1, from the first level to the deepest; (N, A)
                                 counts as (N, A, 1, 1), as do pooled features
        t_i  (N, C_i, Y_i, X_i)  bottoms k to 2k − 1: the teacher's
        w1   (M, A_i, 1, 1)      weights of each level, first level first: "1/reduce/weight",
                                 scale and shift (M) of its batch normalisation,
        w2   (C_i, M, 3, 3)      "1/expand/weight", scale and shift (C_i),
        w3   (2, 2·M, 1, 1)      "1/attention/weight" and bias (2), which the deepest has not
        L    ()                  top 0
    Parameters: mid_channels M (A_k, at most 512)
    Gradient: from the op rules, to all of the student and the weights; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. Enlarging repeats the nearest value. Batch
        normalisation is by the batch in both phases. The recommended loss_weight is 1 to 8 (0.6
        for small ResNets), raised linearly from 0 over the first 20 epochs by a schedule.
    Faults: a number of bottoms that is odd; features that are not batches of as many maps;
        pairs whose items differ.
    Source: Chen et al. 2021, "Distilling Knowledge via Knowledge Review", sections 3.2 and 3.3;
        value as dvlab-research/ReviewKD ABF and hcl, and as megvii-research/mdistiller ReviewKD.
    """

    roles = ("student", "teacher")

    @classmethod
    def roles_in(cls, count: int) -> tuple[str, ...]:
        """The first half is the student's."""
        return tuple(cls.roles[bottom >= count // 2] for bottom in range(count))

    def check(self, *bottoms: Tensor) -> None:
        """Pairs of maps of as many items."""
        if len(bottoms) % 2:
            text = f"as many teacher as student features wanted, not {len(bottoms)} in all"
            self.fail("bottom-count", text, self.model.source.span(("bottom", 0)))
        for index, x in enumerate(bottoms):
            say = f"a feature of shape {x.shape} is not (N, C, H, W) or (N, C)"
            self.require_shape(x.rank in (2, 4), bottom=index, say=say)
            say = f"{x.shape[0]} items beside {bottoms[0].shape[0]} of the first bottom"
            self.require_shape(x.shape[0] == bottoms[0].shape[0], bottom=index, say=say)

    def weights(self, *bottoms: Tensor) -> list[Weight]:
        """Those of each level's fusion module."""
        count = len(bottoms) // 2
        found = []
        for index, (s, t) in enumerate(zip(bottoms[:count], bottoms[count:], strict=True)):
            middle = self._middle(bottoms[count - 1])
            found += _level_weights(f"{index + 1}", s.shape[1], middle, t.shape[1])
            if index < count - 1:
                found += _attention_weights(f"{index + 1}", middle)
        return found

    def _middle(self, deepest: Tensor) -> int:
        return self.params.mid_channels or min(LARGEST, deepest.shape[1])

    def emit(self, g: Emitter, *inputs: Tensor) -> Tensor:
        """From the deepest level up."""
        count = len(self.model.bottoms) // 2
        maps = [
            g.reshape(x, (*x.shape[:2], *(x.shape[2:] or (1, 1)))) for x in inputs[: 2 * count]
        ]
        weights = inputs[2 * count :]
        below: Tensor | None = None
        terms = []
        for index in reversed(range(count)):
            teacher = g.stop_gradient(maps[count + index])
            own = weights[index * FUSED : (index + 1) * FUSED]
            fused = _fused(g, maps[index], below, own)
            below = enlarged(g, fused, teacher.shape[2:])
            result = batch_normalised(g, convolved(g, below, own[3]), own[4], own[5])
            terms.append(_hierarchical(g, result, teacher))
        total = terms[0]
        for term in terms[1:]:
            total = g.add(total, term)
        return total


def _level_weights(stem: str, inner: int, middle: int, outer: int) -> list[Weight]:
    xavier = pb.FillerParameter(type="xavier")
    return [
        Weight(f"{stem}/reduce/weight", (middle, inner, 1, 1), xavier),
        Weight(f"{stem}/reduce/scale", (middle,), constant(1)),
        Weight(f"{stem}/reduce/shift", (middle,), constant(0)),
        Weight(f"{stem}/expand/weight", (outer, middle, 3, 3), xavier),
        Weight(f"{stem}/expand/scale", (outer,), constant(1)),
        Weight(f"{stem}/expand/shift", (outer,), constant(0)),
    ]


def _attention_weights(stem: str, middle: int) -> list[Weight]:
    shape = (2, 2 * middle, 1, 1)
    return [
        Weight(f"{stem}/attention/weight", shape, within_fan(shape)),
        Weight(f"{stem}/attention/bias", shape[:1], within_fan(shape)),
    ]


def _fused(g: Emitter, x: Tensor, below: Tensor | None, own: Sequence[Tensor]) -> Tensor:
    """A level's features in the middle channels, blended with those of the level below."""
    x = batch_normalised(g, convolved(g, x, own[0]), own[1], own[2])
    if below is None:
        return x
    r = enlarged(g, below, x.shape[2:])
    shares = g.sigmoid(convolved(g, g.concat([x, r], 1), own[6], own[7]))
    first, second = (g.slice(shares, [1], [i], [i + 1]) for i in (0, 1))
    return g.add(g.mul(x, first), g.mul(r, second))


def _hierarchical(g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over a pyramid, whose levels count half as much as the one before."""
    total, share, shares = mean_square(g, student, teacher), 1.0, 1.0
    for size in LEVELS:
        if size >= student.shape[2]:
            continue
        share /= 2
        shares += share
        pooled = (average_to(g, x, (size, size)) for x in (student, teacher))
        total = g.add(total, g.mul(mean_square(g, *pooled), share))
    return g.mul(total, 1.0 / shares)
