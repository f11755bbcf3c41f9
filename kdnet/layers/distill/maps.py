"""Losses of maps whose channels need not agree: attention, neuron selectivity, flow matrices."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.features import (
    FeatureLoss,
    Spatial,
    mean_all,
    mean_square,
    same_space,
    unit,
)
from kdnet.layers.normalization import LossLayer


@layer("AttentionTransfer", params="attention_transfer_param", bottoms=2)
class AttentionTransfer(FeatureLoss):
    """Mean squared distance of the places' attention, each map scaled to length 1 (AT).

        a_x[n, p] = mean over c of |x[n, c, p]|^p,   L = mean (a_s/|a_s| − a_t/|a_t|)²

    with the length over the places of an item.

    Shapes:
        s  (N, C_s, ...)  bottom 0: the student's maps
        t  (N, C_t, ...)  bottom 1: the teacher's maps
        L  ()             top 0
    Parameters: p (2), at least 1; spatial (AUTO: the larger map is averaged down to the smaller)
    Gradient: from the op rules, to the student; the teacher gets none. That of a map of zeros
        is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 1000 for each of
        the pairs of features. RepDistiller takes x^p instead of |x|^p, which matters where p is
        odd.
    Faults: p below 1; batches of different sizes; features without spatial axes, or with other
        extents and spatial NONE.
    Source: Zagoruyko, Komodakis 2017, "Paying More Attention to Attention", equation 2; value as
        HobbitLong/RepDistiller Attention.
    """

    same_channels = False
    needs_maps = True

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Maps, and a power with a gradient."""
        p = self.params.p
        self.require(1 <= p < float("inf"), at="p", say=f"must be at least 1, not {p:g}")
        self.check_pair(student, teacher)

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean square over items and places."""
        return mean_square(g, self._attention(g, student), self._attention(g, teacher))

    def _attention(self, g: Emitter, x: Tensor) -> Tensor:
        powers = g.square(x) if self.params.p == 2 else g.pow(g.abs(x), self.params.p)
        places = g.reshape(g.reduce_mean(powers, [1]), (x.shape[0], prod(x.shape[2:])))
        return unit(g, places, [1])


@layer("NeuronSelectivity", params="neuron_selectivity_param", bottoms=2)
class NeuronSelectivity(FeatureLoss):
    """Squared maximum mean discrepancy of the channels' spatial patterns (NST).

        L = mean k(t, t) + mean k(s, s) − 2 · mean k(s, t),   k(x, y)[n, i, j] = (x[n, i]·y[n, j])²

    where each channel x[n, i] is the vector of its places, scaled to length 1.

    Shapes:
        s  (N, C_s, ...)  bottom 0: the student's maps
        t  (N, C_t, ...)  bottom 1: the teacher's maps
        L  ()             top 0
    Parameters: spatial (AUTO: the larger map is averaged down to the smaller)
    Gradient: from the op rules, to the student; the teacher gets none. That of a channel of zeros
        is 0.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 50 for each of
        the pairs of features.
    Faults: batches of different sizes; features without spatial axes, or with other extents and
        spatial NONE.
    Source: Huang, Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer", with the polynomial kernel of degree 2 and offset 0; value as
        HobbitLong/RepDistiller NSTLoss.
    """

    same_channels = False
    needs_maps = True

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The three means of the kernel."""
        s, t = (
            unit(g, g.reshape(x, (*x.shape[:2], prod(x.shape[2:]))), [2])
            for x in (student, teacher)
        )
        own = g.add(_kernel_mean(g, t, t), _kernel_mean(g, s, s))
        return g.sub(own, g.mul(_kernel_mean(g, s, t), 2.0))


def _kernel_mean(g: Emitter, a: Tensor, b: Tensor) -> Tensor:
    return mean_all(g, g.square(g.matmul(a, g.transpose(b, (0, 2, 1)))))


@layer("FlowMatrix", params="flow_matrix_param", bottoms=4)
class FlowMatrix(LossLayer):
    """Mean squared distance of the flow from one layer to another in student and teacher (FSP).

        G_x[n, i, j] = mean over p of x1[n, i, p] · x2[n, j, p],   L = mean (G_s − G_t)²

    Shapes:
        s1  (N, C, ...)  bottom 0: the student's maps at the first place
        s2  (N, D, ...)  bottom 1: the student's maps at the second place
        t1  (N, C, ...)  bottom 2: the teacher's maps at the first place
        t2  (N, D, ...)  bottom 3: the teacher's maps at the second place
        L   ()           top 0
    Parameters: spatial (AUTO: of the two maps of one net, the larger is averaged down to the
        smaller)
    Gradient: from the op rules, to the student; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 50 for each of
        the flows; the authors train with this loss alone first. RepDistiller averages maps of
        different size as kdnet does; the paper takes the maximum.
    Faults: batches of different sizes; features without spatial axes; two maps of one net with
        other extents and spatial NONE; student and teacher with different channels.
    Source: Yim et al. 2017, "A Gift from Knowledge Distillation", equations 1 and 2; value as
        HobbitLong/RepDistiller FSP.
    """

    roles = ("student", "student", "teacher", "teacher")

    def check(self, s1: Tensor, s2: Tensor, t1: Tensor, t2: Tensor) -> None:
        """Maps of one batch, whose channels are the same in both nets."""
        for index, x in enumerate((s1, s2, t1, t2)):
            fits = x.rank > 2 and x.rank == s1.rank and x.shape[0] == s1.shape[0]
            say = f"features of shapes {s1.shape} and {x.shape} must be maps of as many items"
            self.require_shape(fits, bottom=index, say=say)
        for index, (s, t) in enumerate(((s1, t1), (s2, t2))):
            say = f"student features of shape {s.shape} and teacher features of shape {t.shape} "
            text = f"{say}have {s.shape[1]} and {t.shape[1]} channels"
            self.require_shape(s.shape[1] == t.shape[1], bottom=2 + index, say=text)
        for index, (first, second) in enumerate(((s1, s2), (t1, t2))):
            same = first.shape[2:] == second.shape[2:]
            say = f"features of shapes {first.shape} and {second.shape} differ in their space, "
            self.require_shape(
                same or self.params.spatial == Spatial.AUTO,
                bottom=1 + 2 * index,
                say=f"{say}and spatial is NONE",
                help="without it the larger ones are averaged down to the smaller",
            )

    def emit(self, g: Emitter, s1: Tensor, s2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
        """The mean square of the two nets' flows."""
        flow = _flow(g, g.stop_gradient(t1), g.stop_gradient(t2))
        return mean_square(g, _flow(g, s1, s2), flow)


def _flow(g: Emitter, first: Tensor, second: Tensor) -> Tensor:
    first, second = same_space(g, first, second)
    places = prod(first.shape[2:])
    rows, columns = (g.reshape(x, (*x.shape[:2], places)) for x in (first, second))
    return g.mul(g.matmul(rows, g.transpose(columns, (0, 2, 1))), 1.0 / places)
