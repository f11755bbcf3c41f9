"""Layers that join and part blobs: Concat, Slice, Split, Silence."""

from __future__ import annotations

from collections.abc import Sequence

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, layer


class AlongAxis(Layer):
    """A layer with an axis that old files give as ``old_name``, which counts from 0 only."""

    old_name: str

    def along(self, x: Tensor) -> int:
        """The axis, from whichever field gives it."""
        if not self.params.HasField(self.old_name):
            return self.axis(x, self.params.axis)
        self.require(
            not self.params.HasField("axis"),
            at=self.old_name,
            say="the old name of axis; give only one of the two",
        )
        return self.axis(x, getattr(self.params, self.old_name), at=self.old_name)


@layer("Concat", params="concat_param", bottoms=(1, ANY))
class Concat(AlongAxis):
    """Join bottoms along an axis.

        y = [x_0, x_1, ...]

    Shapes:
        x_i  (N, C_i, ...)    bottom i; all axes agree but ``axis``
        y    (N, Σ C_i, ...)  top 0
    Parameters: axis (1); concat_dim is its deprecated name
    Gradient: from the op rules: each bottom gets its own stretch.
    Differs from Caffe: nothing.
    Faults: axis out of range; axis and concat_dim; bottoms that differ on another axis.
    Source: BVLC/caffe concat_layer.
    """

    old_name = "concat_dim"

    def check(self, first: Tensor, *others: Tensor) -> None:
        """All axes but one agree."""
        axis = self.along(first)
        for index, other in enumerate(others, start=1):
            self.require_shape(
                _without(other.shape, axis) == _without(first.shape, axis)
                and other.rank == first.rank,
                bottom=index,
                say=f'bottom "{self.model.bottoms[index]}" has shape {other.shape}, '
                f'but "{self.model.bottoms[0]}" has {first.shape}',
                help=f"bottoms may differ on axis {axis} only",
            )

    def emit(self, g: Emitter, *bottoms: Tensor) -> Tensor:
        """One node, or none for a single bottom."""
        return g.concat(bottoms, self.along(bottoms[0]))


@layer("Slice", params="slice_param", tops=(1, ANY))
class Slice(AlongAxis):
    """Cut the bottom into tops along an axis.

        y_i = x[p_i : p_(i+1)],  p = (0, slice_point..., C)

    Shapes:
        x    (N, C, ...)                bottom 0
        y_i  (N, p_(i+1) − p_i, ...)    top i
    Parameters: axis (1), slice_dim is its deprecated name; slice_point (equal parts), rising,
        one less than tops
    Gradient: from the op rules: the tops' gradients joined.
    Differs from Caffe: a last part without elements is refused.
    Faults: axis out of range; axis and slice_dim; a number of slice_point that does not fit the
        tops; points that do not rise or lie outside; an extent that does not divide.
    Source: BVLC/caffe slice_layer.
    """

    old_name = "slice_dim"

    def check(self, x: Tensor) -> None:
        """The cuts lie inside the axis, in order."""
        extent = x.shape[self.along(x)]
        points, tops = list(self.params.slice_point), len(self.model.tops)
        if not points:
            self.require_shape(
                extent % tops == 0,
                bottom=0,
                say=f"{extent} elements on axis {self.along(x)} of {x.shape} do not divide into "
                f"{tops} equal tops",
                help="say where to cut with slice_point",
            )
            return
        self.require(
            len(points) == tops - 1,
            at="slice_point",
            say=f"{tops - 1} wanted, one less than tops, not {len(points)}",
            help="without any, the tops are equal parts",
        )
        self._check_points(points, extent)

    def _check_points(self, points: Sequence[int], extent: int) -> None:
        before = 0
        for index, point in enumerate(points):
            self.require(
                before < point < extent,
                at=f"slice_point.{index}",
                say=f"{point} is not between {before} and {extent}",
                help="points must rise and lie inside the axis",
            )
            before = point

    def emit(self, g: Emitter, x: Tensor) -> tuple[Tensor, ...]:
        """One node, or none for a single top."""
        axis, tops = self.along(x), len(self.model.tops)
        if tops == 1:
            return (x,)
        extent = x.shape[axis]
        points = list(self.params.slice_point)
        points = points or [extent // tops * part for part in range(1, tops)]
        sizes = [end - start for start, end in zip([0, *points], [*points, extent], strict=True)]
        return g.multi("Split", x, g.ints(*sizes), count=tops, axis=axis)


@layer("Split", tops=(1, ANY))
class Split(Layer):
    """Give the bottom under several names.

        y_i = x

    Shapes:
        x    any   bottom 0
        y_i  as x  top i
    Parameters: none
    Gradient: the sum of the tops' gradients.
    Differs from Caffe: it is never needed: a blob may be read by any number of layers.
    Faults: none.
    Source: BVLC/caffe split_layer.
    """

    def emit(self, _g: Emitter, x: Tensor) -> tuple[Tensor, ...]:
        """No node."""
        return (x,) * len(self.model.tops)


@layer("Silence", bottoms=(1, ANY), tops=0)
class Silence(Layer):
    """Take blobs that nobody needs, so that they are not reported as outputs.

        nothing

    Shapes:
        x_i  any  bottom i
    Parameters: none
    Gradient: none.
    Differs from Caffe: nothing.
    Faults: none.
    Source: BVLC/caffe silence_layer.
    """

    def emit(self, _g: Emitter, *_bottoms: Tensor) -> tuple[Tensor, ...]:
        """No node."""
        return ()


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])
