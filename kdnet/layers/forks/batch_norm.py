"""BN: batch normalisation with its own scale and shift, as two families of forks have it."""

from __future__ import annotations

from dataclasses import replace

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.layers.batch_norm import standardized
from kdnet.net import ParamModel
from kdnet.schema import kdnet_pb2 as pb

Kinds = pb.BNParameter
OF_SEGNET = ("scale_filler", "shift_filler", "bn_mode")
OF_PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")
# SegNet's layer has it in its code.
SEGNET_EPS = 1e-9


@layer("BN", params="bn_param", tops=(1, 3))
class BN(Layer):
    """Normalise each channel, scale it and shift it.

        y = s · (x − μ) / √(v + eps) + b

    with μ and v over all axes but 1. Two families of forks have a layer of this name. The fields
    say which one it is; without any it is the first.

    yjxiong/caffe and PSPNet, with four blobs: μ and v are those of the batch in TRAIN, and the
    stored ones in TEST and where it is ``frozen``. In TRAIN, unless frozen, the blobs become

        M ← f·M + (1 − f)·μ,   V ← f·V + (1 − f)·v

    SegNet, with two blobs: bn_mode LEARN takes those of the batch in TRAIN and TEST alike, with
    eps = 1e-9; INFERENCE takes none, y = s·x + b.

    Shapes:
        x     (N, C, ...)   bottom 0
        s     (1, C, 1, 1)  weight 0: slope, or scale
        b     (1, C, 1, 1)  weight 1: bias, or shift
        M, V  (1, C, 1, 1)  weights 2 and 3, state, not of SegNet: running mean and variance
        y     as x          top 0
        μ, v  (1, C, 1, 1)  tops 1 and 2, optional, of SegNet's LEARN alone
    Parameters: slope_filler (zeros), bias_filler (zeros), momentum f (0.9), eps (1e-5), frozen
        (false): slope and bias are not trained whatever lr_mult says; engine changes nothing. Or
        SegNet's scale_filler (zeros), shift_filler (zeros), bn_mode (LEARN)
    Gradient: through the batch's mean and variance too, by the rule Standardize; else from the op
        rules. M, V and the tops μ and v get and give none.
    Differs from Caffe: the layer is of forks. The variance of a batch has divisor m, in V too, as
        in the forks' own code; cuDNN, which they prefer where it is there, has m − 1 in V. A blob
        of shape (1, C) in a file fits.
    Faults: fields of both families; momentum outside [0, 1]; eps not positive; a bottom without
        channels; further tops where they are not made.
    Source: yjxiong/caffe and hszhao/PSPNet bn_layer; alexgkendall/caffe-segnet bn_layer;
        Ioffe, Szegedy 2015.
    """

    @property
    def of_segnet(self) -> bool:
        """Whether the fields are those of SegNet's layer."""
        return any(self.params.HasField(name) for name in OF_SEGNET)

    @property
    def stored(self) -> bool:
        """Whether the stored statistics are used."""
        return self.params.frozen or not self.train

    def param(self, index: int) -> ParamModel:
        """As stated, but nothing of a frozen layer is trained."""
        own = super().param(index)
        if not self.params.frozen:
            return own
        given = frozenset(("lr_mult", "decay_mult"))
        return replace(own, lr_mult=0.0, decay_mult=0.0, given=given)

    def check(self, x: Tensor) -> None:
        """The fields are of one family and usable."""
        say = f"a bottom of shape {x.shape} has no channels on axis 1"
        self.require_shape(x.rank > 1, bottom=0, say=say)
        if self.of_segnet:
            for name in OF_PSPNET:
                mixed = self.params.HasField(name)
                what = next(field for field in OF_SEGNET if self.params.HasField(field))
                say = f"is not of the fork that has {what}"
                self.require(not mixed, at=name, say=say, help="the forks' layers differ")
        momentum, eps = self.params.momentum, self.params.eps
        say = f"must be in [0, 1], not {momentum:g}"
        self.require(0 <= momentum <= 1, at="momentum", say=say)
        self.require(0 < eps < float("inf"), at="eps", say=f"must be positive, not {eps:g}")
        self._check_tops()

    def _check_tops(self) -> None:
        learns = self.of_segnet and self.params.bn_mode == Kinds.LEARN
        if len(self.model.tops) > 1 and not learns:
            text = "mean and variance are tops of SegNet's layer with bn_mode: LEARN alone"
            self.fail("top-count", text, self.model.source.span(("top", 1)))

    def weights(self, x: Tensor) -> list[Weight]:
        """Scale and shift, and what is known of the data."""
        shape, given = (1, x.shape[1], 1, 1), self.params
        if self.of_segnet:
            fillers = {"scale": given.scale_filler, "shift": given.shift_filler}
            return [Weight(name, shape, filler) for name, filler in fillers.items()]
        return [
            Weight("slope", shape, given.slope_filler),
            Weight("bias", shape, given.bias_filler),
            Weight("mean", shape, state=True),
            Weight("variance", shape, _constant(float(given.frozen)), state=True),
        ]

    def emit(
        self, g: Emitter, x: Tensor, scale: Tensor, shift: Tensor, *statistics: Tensor
    ) -> tuple[Tensor, ...]:
        """By the stored statistics, those of the batch, or none."""
        if statistics and self.stored:
            return (self._by_stored(g, x, scale, shift, statistics),)
        if self.of_segnet and self.params.bn_mode == Kinds.INFERENCE:
            return (_affine(g, x, scale, shift),)
        eps = SEGNET_EPS if self.of_segnet else self.params.eps
        y, mean, variance = standardized(g, x, eps)
        found = [g.reshape(value, scale.shape) for value in (mean, variance)]
        for blob, value in zip(statistics, found, strict=False):
            self._follow(g, blob, value)
        return (_affine(g, y, scale, shift), *found)[: len(self.model.tops)]

    def _by_stored(
        self,
        g: Emitter,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        statistics: tuple[Tensor, ...],
    ) -> Tensor:
        blobs = [g.reshape(blob, (x.shape[1],)) for blob in (scale, shift, *statistics)]
        return g.op("BatchNormalization", x, *blobs, epsilon=self.params.eps)

    def _follow(self, g: Emitter, blob: Tensor, batch: Tensor) -> None:
        kept = self.params.momentum
        self.update(blob, g.add(g.mul(blob, kept), g.mul(batch, 1.0 - kept)))


def _constant(value: float) -> pb.FillerParameter:
    return pb.FillerParameter(type="constant", value=value)


def _affine(g: Emitter, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scaled and shifted channels."""
    spread = (x.shape[1], *[1] * (x.rank - 2))
    return g.add(g.mul(x, g.reshape(scale, spread)), g.reshape(shift, spread))
