"""Permute, Tile and Crop: the bottom's elements in other places."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("Permute", params="permute_param")
class Permute(Layer):
    """Give the axes another order.

        y[i_order(0), i_order(1), ...] = x[i_0, i_1, ...]

    Shapes:
        x  (D_0, D_1, ...)                bottom 0
        y  (D_order(0), D_order(1), ...)  top 0
    Parameters: order, axes of x from 0; those not named follow in their own order
    Gradient: from the op rules: the axes are put back.
    Differs from Caffe: nothing; the layer is of SSD's fork.
    Faults: an axis that x does not have, or named twice.
    Source: weiliu89/caffe permute_layer; Liu et al. 2016 (SSD).
    """

    def check(self, x: Tensor) -> None:
        """Every axis exists and is named once."""
        given = list(self.params.order)
        for index, axis in enumerate(given):
            at = f"order.{index}"
            say = f"{axis} is no axis of a bottom of shape {x.shape}"
            self.require(axis < x.rank, at=at, say=say, help="axes count from 0")
            self.require(axis not in given[:index], at=at, say=f"{axis} is named twice")

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One Transpose, or none for the order that x has."""
        given = list(self.params.order)
        return g.transpose(x, given + [axis for axis in range(x.rank) if axis not in given])


@layer("Tile", params="tile_param")
class Tile(Layer):
    """Repeat the bottom along an axis.

        y[..., t·D + d, ...] = x[..., d, ...],  t = 0 ... tiles − 1

    Shapes:
        x  (..., D, ...)          bottom 0; D is the extent of ``axis``
        y  (..., tiles · D, ...)  top 0
    Parameters: tiles ≥ 1 (required); axis (1)
    Gradient: from the op rules: the copies' gradients are summed.
    Differs from Caffe: nothing.
    Faults: tiles missing or below 1; axis out of range.
    Source: BVLC/caffe tile_layer.
    """

    def check(self, x: Tensor) -> None:
        """There is at least one copy, along an axis that exists."""
        self.require(self.params.tiles > 0, at="tiles", say="must be positive")
        self.axis(x, self.params.axis)

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One node, or none for a single copy."""
        if self.params.tiles == 1:
            return x
        copies = [1] * x.rank
        copies[self.axis(x, self.params.axis)] = self.params.tiles
        return g.op("Tile", x, g.ints(*copies))


@layer("Crop", params="crop_param", bottoms=2)
class Crop(Layer):
    """Cut the first bottom to the extents of the second.

        y[i_0, i_1, ...] = x[i_0 + o_0, i_1 + o_1, ...]

    with the offset o of the axes from ``axis`` on, and 0 before it.

    Shapes:
        x  (N, C, H, W)   bottom 0
        r  (., ., H', W')  bottom 1, of as many axes, of which only the extents are read
        y  (N, C, H', W')  top 0: the axes from ``axis`` on are r's
    Parameters: axis (2); offset (0), once for all these axes or once for each
    Gradient: from the op rules: zeros around the top's; r gets none.
    Differs from Caffe: nothing.
    Faults: bottoms of different rank; axis out of range; another number of offsets; a cut that
        reaches past x.
    Source: BVLC/caffe crop_layer.
    """

    def check(self, x: Tensor, reference: Tensor) -> None:
        """The cut lies inside the bottom."""
        self.require_shape(
            x.rank == reference.rank,
            bottom=1,
            say=f'bottom "{self.model.bottoms[1]}" has shape {reference.shape}, '
            f'but "{self.model.bottoms[0]}" has {x.shape}',
            help="both bottoms must have as many axes",
        )
        axis, given = self.axis(x, self.params.axis), len(self.params.offset)
        self.require(
            given in (0, 1, x.rank - axis),
            at="offset",
            say=f"given {given} times; once, or once for each of {x.rank - axis} axes",
        )
        for place, start, end in self._cuts(x, reference):
            wanted, there = end - start, x.shape[place]
            names = self.model.bottoms
            say = f'axis {place} of "{names[1]}" has {wanted} elements, of "{names[0]}" {there}'
            self.require_shape(wanted <= there, bottom=1, say=say, help="nothing is added by Crop")
            at = f"offset.{place - axis if given > 1 else 0}"
            say = f"{start} leaves no {wanted} elements of axis {place} of {x.shape}"
            self.require(end <= there, at=at, say=say)

    def _cuts(self, x: Tensor, reference: Tensor) -> list[tuple[int, int, int]]:
        """Axis, start and end of each cut."""
        axis, given = self.axis(x, self.params.axis), list(self.params.offset)
        offsets = given if len(given) > 1 else (given or [0]) * (x.rank - axis)
        places = enumerate(offsets, start=axis)
        return [(place, start, start + reference.shape[place]) for place, start in places]

    def emit(self, g: Emitter, x: Tensor, reference: Tensor) -> Tensor:
        """One Slice."""
        axes, starts, ends = zip(*self._cuts(x, reference), strict=True)
        return g.slice(x, axes, starts, ends)
