"""L1Loss and SmoothL1Loss: distances that grow linearly."""

from __future__ import annotations

from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.normalization import LossLayer


class Distance(LossLayer):
    """A loss of the difference of two bottoms, divided by the items of the batch."""

    roles: ClassVar[tuple[str, ...]] = ("values", "target")

    def check(self, a: Tensor, *others: Tensor) -> None:
        """The bottoms have a batch axis and as many elements."""
        self.require_shape(a.rank > 0, bottom=0, say="a single number has no batch axis")
        names = self.model.bottoms
        for index, other in enumerate(others, start=1):
            self.require_shape(
                a.shape[:1] == other.shape[:1] and a.size == other.size,
                bottom=index,
                say=f'bottom "{names[index]}" has shape {other.shape}, '
                f'but "{names[0]}" has {a.shape}',
                help="all bottoms must have one shape",
            )


@layer("L1Loss", bottoms=2)
class L1Loss(Distance):
    """The absolute difference of two bottoms, averaged over the batch.

        L = 1/N · Σ_i |a[i] − b[i]|

    Shapes:
        a  (N, ...)  bottom 0
        b  (N, ...)  bottom 1; as many elements as a
        L  ()        top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules, to both bottoms; 0 where they are equal.
    Differs from Caffe: nothing; the layer is of NVIDIA's fork.
    Faults: shapes with different numbers of elements.
    Source: NVIDIA/caffe l1_loss_layer.
    """

    def emit(self, g: Emitter, a: Tensor, b: Tensor) -> Tensor:
        """The sum of the differences without their signs."""
        difference = g.sub(a, g.reshape(b, a.shape))
        return g.mul(g.sum_all(g.abs(difference)), 1.0 / a.shape[0])


@layer("SmoothL1Loss", params="smooth_l1_loss_param", bottoms=(2, 4))
class SmoothL1Loss(Distance):
    """Half a square near 0 and linear beyond, of the weighted difference of two bottoms.

        d = u · (a − b)
        L = 1/N · Σ_i v[i] · ( sigma²·d[i]²/2       where |d[i]| < 1/sigma²
                               |d[i]| − 1/(2·sigma²)  elsewhere )

    Shapes:
        a  (N, ...)  bottom 0
        b  (N, ...)  bottom 1; as many elements as a
        u  (N, ...)  bottom 2, optional: weights inside, by default 1
        v  (N, ...)  bottom 3, optional: weights outside, by default 1
        L  ()        top 0
    Parameters: sigma (1), positive; loss_param is not read
    Gradient: from the op rules, to a and b; the weights get none.
    Differs from Caffe: nothing, and all its forks read here: SSD's and NVIDIA's take u alone and
        have no sigma; Faster R-CNN's and Intel's take u and v together, or neither.
    Faults: sigma not positive; shapes with different numbers of elements.
    Source: rbgirshick/caffe-fast-rcnn, weiliu89/caffe and NVIDIA/caffe smooth_L1_loss_layer;
        Girshick 2015 (Fast R-CNN), equation 3.
    """

    roles = ("values", "target", "weights")

    def check(self, a: Tensor, *others: Tensor) -> None:
        """A usable sigma, and bottoms that match."""
        sigma = self.params.sigma
        self.require(0 < sigma < float("inf"), at="sigma", say=f"must be positive, not {sigma:g}")
        super().check(a, *others)

    def emit(self, g: Emitter, a: Tensor, b: Tensor, *weights: Tensor) -> Tensor:
        """With m = min(|d|, 1/sigma²) both cases are sigma² · m · (|d| − m/2)."""
        inside, outside = (*(g.stop_gradient(g.reshape(w, a.shape)) for w in weights), None, None)[
            :2
        ]
        square = self.params.sigma**2
        d = g.sub(a, g.reshape(b, a.shape))
        far = g.abs(d if inside is None else g.mul(d, inside))
        near = g.minimum(far, 1.0 / square)
        terms = g.mul(near, g.sub(far, g.mul(near, 0.5)))
        terms = terms if outside is None else g.mul(terms, outside)
        return g.mul(g.sum_all(terms), square / a.shape[0])
