"""Flatten and Reshape: the same elements under another shape."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("Flatten", params="flatten_param")
class Flatten(Layer):
    """Join neighbouring axes into one.

        y = x

    Shapes:
        x  (N, C, H, W)    bottom 0
        y  (N, C · H · W)  top 0: the axes from ``axis`` to ``end_axis`` are one
    Parameters: axis (1); end_axis (-1), included
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: axis or end_axis out of range; end_axis before axis.
    Source: BVLC/caffe flatten_layer.
    """

    def _range(self, x: Tensor) -> tuple[int, int]:
        start = self.axis(x, self.params.axis)
        return start, self.axis(x, self.params.end_axis, at="end_axis")

    def check(self, x: Tensor) -> None:
        """There are axes to join."""
        start, end = self._range(x)
        self.require(
            start <= end,
            at="end_axis",
            say=f"axis {end} lies before axis {start} of a bottom of shape {x.shape}",
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One Reshape."""
        start, end = self._range(x)
        joined = prod(x.shape[start : end + 1])
        return g.reshape(x, (*x.shape[:start], joined, *x.shape[end + 1 :]))


@layer("Reshape", params="reshape_param")
class Reshape(Layer):
    """Replace some axes by others.

        y = x

    Shapes:
        x  (A..., B..., C...)      bottom 0; B: ``num_axes`` axes from ``axis`` on
        y  (A..., shape..., C...)  top 0
    Parameters: shape, whose extents are positive, 0 for x's extent at that place, or -1 (once)
        for what is left; axis (0), where -1 is behind the last; num_axes (-1: to the end)
    Gradient: from the op rules.
    Differs from Caffe: nothing.
    Faults: axis or num_axes out of range; two -1; an extent below -1; a 0 behind the last axis;
        another number of elements.
    Source: BVLC/caffe reshape_layer.
    """

    def check(self, x: Tensor) -> None:
        """The range exists and the new shape fits."""
        dims = list(self.params.shape.dim)
        start, end = self._range(x)
        for index, dim in enumerate(dims):
            self._check_dim(x, dims, index, start)
            self.require(dim >= -1, at=f"shape.dim.{index}", say=f"{dim} is no extent")
        shape = self._shape(x)
        self.require(
            shape is not None and prod(shape) == x.size,
            at="shape",
            say=f"{self._text(x, dims, start, end)} does not have the {x.size} elements of "
            f"the bottom's shape {x.shape}",
        )

    def _check_dim(self, x: Tensor, dims: list[int], index: int, start: int) -> None:
        at = f"shape.dim.{index}"
        self.require(
            dims[index] != -1 or -1 not in dims[:index],
            at=at,
            say="only one extent can be inferred",
        )
        self.require(
            dims[index] != 0 or start + index < x.rank,
            at=at,
            say=f"0 copies axis {start + index}, but the bottom has shape {x.shape}",
        )

    def _range(self, x: Tensor) -> tuple[int, int]:
        axis, count = self.params.axis, self.params.num_axes
        start = axis if axis >= 0 else x.rank + 1 + axis
        self.require(
            0 <= start <= x.rank,
            at="axis",
            say=f"{axis} is outside the bottom's shape {x.shape}",
        )
        end = x.rank if count == -1 else start + count
        self.require(
            count >= -1 and end <= x.rank,
            at="num_axes",
            say=f"{count} from axis {start} on go past the bottom's shape {x.shape}",
        )
        return start, end

    def _shape(self, x: Tensor) -> tuple[int, ...] | None:
        """The top's shape; None where what is left for -1 is no whole number."""
        start, end = self._range(x)
        dims = [
            x.shape[start + index] if dim == 0 else dim
            for index, dim in enumerate(self.params.shape.dim)
        ]
        shape = (*x.shape[:start], *dims, *x.shape[end:])
        if -1 not in dims:
            return shape
        known = -prod(shape)
        if known == 0 or x.size % known:
            return None
        return tuple(x.size // known if dim == -1 else dim for dim in shape)

    def _text(self, x: Tensor, dims: list[int], start: int, end: int) -> str:
        return str((*x.shape[:start], *dims, *x.shape[end:]))

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One Reshape."""
        return g.reshape(x, self._shape(x) or x.shape)
