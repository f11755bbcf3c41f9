"""BatchNorm."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer


@layer("BatchNorm", params="batch_norm_param")
class BatchNorm(Layer):
    """Subtract each channel's mean and divide by its standard deviation.

        y = (x − μ) / √(v + eps)

    with the batch's mean μ and biased variance v over all axes but 1, or the stored ones μ = M/F
    and v = V/F. In TRAIN with batch statistics of m elements a channel the blobs become

        M ← f·M + μ,   V ← f·V + v·m/(m−1),   F ← f·F + 1

    Shapes:
        x  (N, C, ...)  bottom 0; (N) counts as one channel
        M  (C)          weight 0, state: the running mean, times F
        V  (C)          weight 1, state: the running unbiased variance, times F
        F  (1)          weight 2, state: the sum of the weights of all batches so far
        y  as x         top 0
    Parameters: use_global_stats (false in TRAIN, true in TEST); eps (1e-5);
        moving_average_fraction f (0.999)
    Gradient: through the batch's mean and variance too, by the rule Standardize; with stored
        statistics from the op rules. The blobs get none.
    Differs from Caffe: nothing. The scale and shift that usually follow are a Scale layer.
    Faults: an lr_mult other than 0: the blobs are not trained.
    Source: BVLC/caffe batch_norm_layer; Ioffe, Szegedy 2015, algorithms 1 and 2.
    """

    @property
    def stored(self) -> bool:
        """Whether the stored statistics are used."""
        given = self.params.HasField("use_global_stats")
        return self.params.use_global_stats if given else not self.train

    def check(self, _x: Tensor) -> None:
        """Nobody asks for trained statistics."""
        for index, spec in enumerate(self.model.message.param):
            if spec.HasField("lr_mult") and spec.lr_mult != 0:
                span = self.model.source.span(("param", index, "lr_mult"))
                text = f"lr_mult {spec.lr_mult:g} of blob {index}: statistics are not trained"
                self.fail("bad-parameter", text, span, "put lr_mult: 0, or leave param out")

    def weights(self, x: Tensor) -> list[Weight]:
        """The running sums and their scale."""
        channels = x.shape[1] if x.rank > 1 else 1
        shapes = {"mean": (channels,), "variance": (channels,), "scale_factor": (1,)}
        return [Weight(name, shape, state=True) for name, shape in shapes.items()]

    def emit(
        self, g: Emitter, x: Tensor, mean: Tensor, variance: Tensor, factor: Tensor
    ) -> Tensor:
        """By the stored or the batch's statistics."""
        rows = x if x.rank > 1 else g.reshape(x, (x.size, 1))
        if self.stored:
            y = self._by_stored(g, rows, mean, variance, factor)
        else:
            y = self._by_batch(g, rows, mean, variance, factor)
        return g.reshape(y, x.shape)

    def _by_stored(
        self, g: Emitter, x: Tensor, mean: Tensor, variance: Tensor, factor: Tensor
    ) -> Tensor:
        inverse = g.where(g.equal(factor, 0.0), 0.0, g.div(1.0, factor))
        return g.op(
            "BatchNormalization",
            x,
            g.constant(np.ones(x.shape[1])),
            g.constant(np.zeros(x.shape[1])),
            g.mul(mean, inverse),
            g.mul(variance, inverse),
            epsilon=self.params.eps,
        )

    def _by_batch(
        self, g: Emitter, x: Tensor, mean: Tensor, variance: Tensor, factor: Tensor
    ) -> Tensor:
        count = x.size // x.shape[1]
        y, batch_mean, batch_variance = standardized(g, x, self.params.eps)
        self._accumulate(g, mean, batch_mean, 1.0)
        self._accumulate(g, variance, batch_variance, count / max(count - 1, 1))
        kept = self.params.moving_average_fraction
        self.update(factor, g.add(g.mul(factor, kept), 1.0))
        return y

    def _accumulate(self, g: Emitter, blob: Tensor, batch: Tensor, share: float) -> None:
        kept = g.mul(blob, self.params.moving_average_fraction)
        self.update(blob, g.add(kept, g.mul(g.reshape(batch, blob.shape), share)))


def standardized(g: Emitter, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x − μ) / √(v + eps) by the batch's statistics over all axes but 1, then μ and v."""
    mean = _channel_mean(g, g.stop_gradient(x))
    centred = g.sub(x, mean)
    variance = _channel_mean(g, g.square(g.stop_gradient(centred)))
    inverse = g.op("Reciprocal", g.sqrt(g.add(variance, eps)))
    return g.op("Mul", centred, inverse, rule="Standardize"), mean, variance


def _channel_mean(g: Emitter, x: Tensor) -> Tensor:
    """The mean over all axes but 1; ONNX Runtime is slow where leading and trailing go at once."""
    rows = g.reduce_mean(x, range(2, x.rank), keepdims=True)
    return g.reduce_mean(rows, [0], keepdims=True)
