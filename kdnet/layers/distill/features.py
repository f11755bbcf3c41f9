"""What feature losses share: matching a student's features to a teacher's, and safe norms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Weight
from kdnet.layers.batch_norm import standardized
from kdnet.layers.normalization import LossLayer
from kdnet.schema import kdnet_pb2 as pb

Projector = pb.ProjectorParameter
Spatial = pb.FeatureLossParameter
Shape = tuple[int, ...]

# As torch's BatchNorm, which the authors' regressors use.
BATCH_NORM_EPS = 1e-5
# ONNX Runtime has convolutions of one to three spatial axes.
CONVOLVED_RANKS = range(3, 6)


class FeatureLoss(LossLayer):
    """A loss of a student's features against a teacher's, which are constant.

    Features are (N, C, ...): items, channels, and any spatial axes. A subclass gives ``compare``,
    and its parameters have a field for each kind of matching that it asks for:

    ``same_channels``: C must be the teacher's, so the student goes through ``projector`` where it
    is not. Its weights are the first that the layer owns.
    ``same_space``: the spatial axes must have equal extents, so on each that differs the larger
    side is averaged down to the smaller, unless ``spatial`` is NONE.
    ``needs_maps``: there must be spatial axes.
    ``flat``: each item is one row (N, D), whatever axes it has; D counts as its channels.

    The loss is what the authors' code returns: ``loss_param`` is not read, and the weight that
    they give it belongs into ``loss_weight``.
    """

    roles = ("student", "teacher")
    same_channels: ClassVar[bool] = True
    same_space: ClassVar[bool] = True
    needs_maps: ClassVar[bool] = False
    flat: ClassVar[bool] = False

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """The features can be matched."""
        self.check_pair(student, teacher)

    def check_pair(self, student: Tensor, teacher: Tensor, *, bottom: int = 1) -> None:
        """Raise shape-mismatch, at the teacher's ``bottom``, where two features cannot match."""
        s, t = student.shape, teacher.shape
        both = f"student features of shape {s} and teacher features of shape {t}"
        fits = len(s) > 1 and len(t) > 1 and s[0] == t[0]
        say = f"{both} must be batches of as many items"
        self.require_shape(fits, bottom=bottom, say=say, help="the first axis counts the items")
        s, t = self.aligned(s, t)
        if self.needs_maps:
            self.require_shape(
                len(s) > 2 and len(t) > 2,
                bottom=bottom,
                say=f"{both}: both must be maps, with spatial axes after the channels",
            )
        if self.same_space:
            self._check_space(s, t, bottom, both)
        if self.same_channels:
            self._check_projector(s, t, bottom, both)

    def _check_space(self, s: Shape, t: Shape, bottom: int, both: str) -> None:
        say = f"{both} have different numbers of spatial axes"
        self.require_shape(len(s) == len(t), bottom=bottom, say=say)
        self.require_shape(
            s[2:] == t[2:] or self.params.spatial == Spatial.AUTO,
            bottom=bottom,
            say=f"{both} have spatial extents {s[2:]} and {t[2:]}, and spatial is NONE",
            help="without it the larger ones are averaged down to the smaller",
        )

    def _check_projector(self, s: Shape, t: Shape, bottom: int, both: str) -> None:
        kind = self.params.projector.type
        unit_name = "values an item" if self.flat else "channels"
        self.require_shape(
            s[1] == t[1] or kind != Projector.NONE,
            bottom=bottom,
            say=f"{both} have {s[1]} and {t[1]} {unit_name}, and the projector is NONE",
            help=f"without it the student's {unit_name} are mapped to the teacher's",
        )
        if kind == Projector.AUTO and s[1] != t[1]:
            kind = Projector.CONVOLUTION if len(t) > 2 else Projector.INNER_PRODUCT
        vectors = kind == Projector.INNER_PRODUCT and len(t) > 2
        maps = kind == Projector.CONVOLUTION and len(t) not in CONVOLVED_RANKS
        self.require(
            not vectors and not maps,
            at="projector.type",
            say=f"{Projector.Type.Name(kind)} is not for {both}",
            help="a convolution is for one to three spatial axes, an inner product for vectors",
        )

    def aligned(self, student: Shape, teacher: Shape) -> tuple[Shape, Shape]:
        """The shapes to compare: rows where ``flat``; (N, C, 1, 1) beside (N, C) is (N, C) too."""
        places = prod(student[2:]), prod(teacher[2:])
        vectors = 2 in (len(student), len(teacher)) and places == (1, 1)
        if not self.flat and not vectors:
            return student, teacher
        return (student[0], student[1] * places[0]), (teacher[0], teacher[1] * places[1])

    def weights(self, student: Tensor, teacher: Tensor) -> list[Weight]:
        """Those of the projector, if there is one."""
        return self.projector_weights(student, teacher)

    def projector_weights(
        self, student: Tensor, teacher: Tensor, *, name: str = "projector"
    ) -> list[Weight]:
        """The blobs of the map from the student's channels to the teacher's; [] without one."""
        s, t = self.aligned(student.shape, teacher.shape)
        given = self.params.projector if self.same_channels else None
        if given is None or given.type == Projector.NONE:
            return []
        if given.type == Projector.AUTO and s[1] == t[1]:
            return []
        default = pb.FillerParameter(type="msra" if given.relu else "xavier")
        filler = given.weight_filler if given.HasField("weight_filler") else default
        found = [Weight(f"{name}/weight", (t[1], s[1], *[1] * (len(t) - 2)), filler)]
        if given.bias_term:
            found.append(Weight(f"{name}/bias", (t[1],)))
        if given.batch_norm:
            one = pb.FillerParameter(type="constant", value=1)
            found += [Weight(f"{name}/scale", (t[1],), one), Weight(f"{name}/shift", (t[1],))]
        return found

    def emit(self, g: Emitter, student: Tensor, teacher: Tensor, *weights: Tensor) -> Tensor:
        """Match the features, then compare them."""
        count = len(self.projector_weights(student, teacher))
        matched = self.matched(g, student, teacher, weights[:count])
        return self.compare(g, *matched, *weights[count:])

    # The open signature lets a subclass name the features and its weights.
    @abstractmethod
    def compare(self, g: Emitter, *_inputs: Any, **_none: Any) -> Tensor:
        """The loss, a scalar, of two features that match as far as the class asks for.

        After them come the weights that the layer owns beside the projector's.
        """

    def matched(
        self, g: Emitter, student: Tensor, teacher: Tensor, projector: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """Both features after everything that the class asks for; the teacher's is constant."""
        s, t = self.aligned(student.shape, teacher.shape)
        student, teacher = g.reshape(student, s), g.reshape(g.stop_gradient(teacher), t)
        if self.same_space:
            student, teacher = same_space(g, student, teacher)
        return self.projected(g, student, projector), teacher

    def projected(self, g: Emitter, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The projector, if it has weights: linear, normalised and cut off as it says."""
        if not weights:
            return x
        given, left = self.params.projector, list(weights)
        y = pointwise(g, x, left.pop(0), left.pop(0) if given.bias_term else None)
        if given.batch_norm:
            scale, shift = (g.reshape(w, (w.size, *[1] * (x.rank - 2))) for w in left)
            y = g.add(g.mul(standardized(g, y, BATCH_NORM_EPS)[0], scale), shift)
        return g.relu(y) if given.relu else y


def pointwise(g: Emitter, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same affine map of the channels everywhere: Gemm of vectors, 1x1 Conv of maps."""
    if x.rank == 2:
        return g.gemm(x, weight, bias, trans_b=True)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return g.op("Conv", *inputs)


def same_space(g: Emitter, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two (N, C, ...) with the smaller of their extents on each spatial axis."""
    extents = [min(pair) for pair in zip(a.shape[2:], b.shape[2:], strict=True)]
    return average_to(g, a, extents), average_to(g, b, extents)


def average_to(g: Emitter, x: Tensor, extents: Sequence[int]) -> Tensor:
    """Adaptive average pooling: (N, C, H...) to (N, C, *extents).

    Place i of O reads the mean over [⌊i·H/O⌋, ⌈(i + 1)·H/O⌉), a product with a constant matrix on
    each axis.
    """
    for axis in reversed(range(2, x.rank)):
        size, wanted = x.shape[axis], extents[axis - 2]
        if size == wanted:
            continue
        means, inner = _window_means(size, wanted), prod(x.shape[axis + 1 :])
        outer = x.size // (size * inner)
        if inner == 1:
            y = g.matmul(g.reshape(x, (outer, size)), g.constant(means.T))
        else:
            y = g.matmul(g.constant(means), g.reshape(x, (outer, size, inner)))
        x = g.reshape(y, (*x.shape[:axis], wanted, *x.shape[axis + 1 :]))
    return x


def _window_means(size: int, wanted: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The matrix (wanted, size) of adaptive average pooling along one axis."""
    means = np.zeros((wanted, size))
    for place in range(wanted):
        start, end = place * size // wanted, -(-(place + 1) * size // wanted)
        means[place, start:end] = 1 / (end - start)
    return means


def unit(
    g: Emitter, x: Tensor, axes: Sequence[int], eps: float = 1e-12, *, added: float = 0.0
) -> Tensor:
    """``x`` over its length along ``axes`` plus ``added``; 0 where that is at most ``eps``.

    Its gradient is 0 there too, where that of a plain quotient is not finite.
    """
    squares = g.reduce_sum(g.square(x), axes, keepdims=True)
    long = g.greater(squares, eps * eps)
    lengths = g.sqrt(g.where(long, squares, 1.0))
    return g.where(long, g.div(x, g.add(lengths, added) if added else lengths), 0.0)


def length(g: Emitter, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
    """The Euclidean length along ``axes``, whose gradient at 0 is 0."""
    squares = g.reduce_sum(g.square(x), axes, keepdims=keepdims)
    some = g.greater(squares, 0.0)
    return g.where(some, g.sqrt(g.where(some, squares, 1.0)), 0.0)


def mean_all(g: Emitter, x: Tensor) -> Tensor:
    """The mean of all elements, a scalar."""
    return g.mul(g.sum_all(x), 1.0 / x.size)


def mean_square(g: Emitter, a: Tensor, b: Tensor) -> Tensor:
    """The mean of the squared differences, a scalar."""
    return mean_all(g, g.square(g.sub(a, b)))


def item_rows(g: Emitter, x: Tensor) -> Tensor:
    """Each item as one row: (N, ...) to (N, D)."""
    return g.reshape(x, (x.shape[0], x.size // x.shape[0]))
