"""FactorTransfer and Paraphraser: a student's factor against a teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.layers.distill.blocks import batch_normalised, constant, convolved, within_fan
from kdnet.layers.distill.features import FeatureLoss, item_rows, mean_all, unit
from kdnet.schema import kdnet_pb2 as pb

SLOPE = 0.1
KERNEL = (3, 3)
MAPS = 4


@layer("FactorTransfer", params="factor_transfer_param", bottoms=2)
class FactorTransfer(FeatureLoss):
    """Distance between the unit vectors of two factors, the student's translated (FT).

        L = mean |f(T(s)) − f(t)|^power,  f(x)[n] = x[n] / ‖x[n]‖

    with the translator T, three convolutions that are trained with the student, and with
    ``channel_power`` p above 0 of the means over channels, f(mean_c x[n, c]^p).

    Shapes:
        s  (N, C_s, H, W)    bottom 0: the student's features, or its factor without translator
        t  (N, C_t, H, W)    bottom 1: the teacher's factor, top 0 of a Paraphraser
        w  (C, C', 3, 3)     weights 0, 2 and 4: "translator0/weight" from C_s to C_s channels, 1
                             to C_t, 2 to C_t; each followed by its bias (C), and with BATCH_NORM
                             by a scale and a shift (C)
        L  ()                top 0
    Parameters: translator NONE, PLAIN (default) or BATCH_NORM, by the batch's statistics in both
        phases; channel_power (0); power (1); weight_filler (uniform within 1/√(9·C')); spatial
        (AUTO: the larger factor is averaged down to the smaller)
    Gradient: from the op rules, to the student and the translator; the teacher gets none.
    Differs from Caffe: the layer is kdnet's own. The recommended loss_weight is 500. RepDistiller
        has translator: BATCH_NORM, channel_power: 2 and the weight 200. A factor no longer than
        1e-12 counts as 0.
    Faults: power 0; features that are not maps of two spatial axes; without translator and
        channel_power, factors of different channels; sizes that differ with spatial NONE.
    Source: Kim, Park, Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", equations 2 and 3; value as Jangho-Kim/Factor-Transfer-pytorch train_student,
        and as HobbitLong/RepDistiller FactorTransfer.
    """

    needs_maps = True
    same_channels = False

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Maps, and factors that can be compared."""
        self.require(self.params.power > 0, at="power", say="must be at least 1")
        super().check(student, teacher)
        say = f"a factor of shape {teacher.shape} is not (N, C, H, W)"
        self.require_shape(teacher.rank == MAPS, bottom=1, say=say)
        translated = self.params.translator != pb.FactorTransferParameter.NONE
        self.require_shape(
            translated or self.params.channel_power > 0 or student.shape[1] == teacher.shape[1],
            bottom=1,
            say=f"factors have {student.shape[1]} and {teacher.shape[1]} channels",
            help="without translator and channel_power they must have as many",
        )

    def weights(self, student: Tensor, teacher: Tensor) -> list[Weight]:
        """The translator's."""
        if self.params.translator == pb.FactorTransferParameter.NONE:
            return []
        normed = self.params.translator == pb.FactorTransferParameter.BATCH_NORM
        inner, outer = student.shape[1], teacher.shape[1]
        channels = (inner, inner, outer, outer)
        return _stack_weights("translator", channels, _filler(self.params), normed=normed)

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, *weights: Tensor) -> Tensor:
        """Translate, bring both to one size, compare."""
        normed = self.params.translator == pb.FactorTransferParameter.BATCH_NORM
        translated = _stack(g, student, weights, each=4 if normed else 2)
        return self.compare(g, *self.matched(g, translated, teacher))

    def compare(self, g: Emitter, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean of a power of the difference of unit vectors."""
        difference = g.sub(self._factor(g, student), self._factor(g, teacher))
        power = self.params.power
        if power == 2:
            return mean_all(g, g.square(difference))
        size = g.abs(difference)
        return mean_all(g, size if power == 1 else g.pow(size, float(power)))

    def _factor(self, g: Emitter, x: Tensor) -> Tensor:
        power = self.params.channel_power
        if power:
            raised = x if power == 1 else g.square(x) if power == 2 else g.pow(x, float(power))
            x = g.reduce_mean(raised, [1])
        return unit(g, item_rows(g, x), [1])


@layer("Paraphraser", params="paraphraser_param", bottoms=1, tops=(1, 2))
class Paraphraser(Layer):
    """Auto-encoder that finds a teacher's factors (FT).

        f = E(x),  y = D(f)

    E and D are three 3x3 convolutions each, every one with a leaky ReLU of slope 0.1. It is
    trained first, in a net of its own and before any student: y against x in an L2Distance or
    EuclideanLoss, whose teacher side is the second bottom. Its file then fills the same layer in
    the net of the student, with one top and ``param { lr_mult: 0 }`` twelve times, and a
    FactorTransfer reads that.

    Shapes:
        x  (N, C, H, W)       bottom 0: the teacher's features
        w  (C_o, C_i, 3, 3)   weights 0, 2, ..., 10: "encoder0/weight" from C to C channels, 1 to
                              F, 2 to F, "decoder0/weight" from F to F, 1 to C, 2 to C; each
                              followed by its bias (C_o)
        f  (N, F, H, W)       top 0: the factor, F = ⌊rate·C⌋
        y  (N, C, H, W)       top 1, optional: what it rebuilds of x
    Parameters: rate (0.5), above 0; weight_filler (uniform within 1/√(9·C_i))
    Gradient: from the op rules, to x as well; FactorTransfer passes none to the factor.
    Differs from Caffe: the layer is kdnet's own. The decoder's transposed convolutions of stride
        1 are written as the convolutions with the mirrored kernels that they are.
    Faults: a rate with which there is no channel; a bottom that is not (N, C, H, W).
    Source: Kim, Park, Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", section 3.1; values as Jangho-Kim/Factor-Transfer-pytorch Paraphraser.
    """

    def check(self, x: Tensor) -> None:
        """Maps, and a factor with channels."""
        self.require_shape(x.rank == MAPS, bottom=0, say=f"{x.shape} is not (N, C, H, W)")
        rate = self.params.rate
        self.require(
            0 < rate < float("inf") and int(rate * x.shape[1]) > 0,
            at="rate",
            say=f"{rate:g} of {x.shape[1]} channels leave none",
        )

    def weights(self, x: Tensor) -> list[Weight]:
        """The encoder's, then the decoder's."""
        outer, inner = x.shape[1], int(self.params.rate * x.shape[1])
        filler = _filler(self.params)
        return [
            *_stack_weights("encoder", (outer, outer, inner, inner), filler),
            *_stack_weights("decoder", (inner, inner, outer, outer), filler),
        ]

    def emit(self, g: Emitter, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """The factor, and what is rebuilt where somebody asks."""
        factor = _stack(g, x, weights[:6], each=2)
        if len(self.model.tops) == 1:
            return (factor,)
        return factor, _stack(g, factor, weights[6:], each=2)


def _filler(
    params: pb.FactorTransferParameter | pb.ParaphraserParameter,
) -> pb.FillerParameter | None:
    return params.weight_filler if params.HasField("weight_filler") else None


def _stack_weights(
    name: str, channels: Sequence[int], filler: pb.FillerParameter | None, *, normed: bool = False
) -> list[Weight]:
    """The blobs of :func:`_stack` for convolutions between neighbours of ``channels``."""
    found = []
    for index, (inner, outer) in enumerate(pairwise(channels)):
        shape = (outer, inner, *KERNEL)
        stem = f"{name}{index}"
        found.append(Weight(f"{stem}/weight", shape, filler or within_fan(shape)))
        found.append(Weight(f"{stem}/bias", (outer,), within_fan(shape)))
        if normed:
            found.append(Weight(f"{stem}/scale", (outer,), constant(1)))
            found.append(Weight(f"{stem}/shift", (outer,), constant(0)))
    return found


def _stack(g: Emitter, x: Tensor, weights: Sequence[Tensor], *, each: int) -> Tensor:
    """A convolution, batch normalisation where it has four blobs, and a leaky ReLU; repeated."""
    for start in range(0, len(weights), each):
        weight, bias, *norm = weights[start : start + each]
        x = convolved(g, x, weight, bias)
        if norm:
            x = batch_normalised(g, x, *norm)
        x = g.op("LeakyRelu", x, alpha=SLOPE)
    return x
