"""Receptive fields: what part of the data each unit of a blob sees.

Unit i of a blob sees, along one axis, the places from ``start + stride·i`` to
``start + stride·i + size − 1`` of the data; those outside it are padding. Where paths meet, a unit
sees all that any of them sees, so the longest path decides.

    behind a window of K places (D·(K − 1) + 1 where dilated), with stride S and pad P:
    size + (K − 1)·stride, stride·S, start − P·stride

Source: Dumoulin, Visin 2016 (the arithmetic of windows); Araujo, Norris, Sim 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any

from kdnet.compile.forward import Forward
from kdnet.graph import Tensor
from kdnet.layers import DataLayer, Layer, Trace, layer_class
from kdnet.layers.arrangement import Crop
from kdnet.layers.deconvolution import Deconvolution
from kdnet.layers.forks.resizing import Interp, Upsample
from kdnet.layers.lrn import LRN
from kdnet.layers.mvn import MVN
from kdnet.layers.pooling import Pooling
from kdnet.layers.windows import Windowed
from kdnet.net import LayerModel, feeders
from kdnet.schema import kdnet_pb2 as pb


@dataclass(frozen=True)
class Extent:
    """What one axis of a blob sees of the data's, in places of the data."""

    size: Fraction = Fraction(1)
    stride: Fraction = Fraction(1)
    start: Fraction = Fraction(0)

    def through(self, kernel: int, stride: int = 1, pad: int = 0) -> Extent:
        """Behind a window that lies dense on this axis."""
        size = self.size + (kernel - 1) * self.stride
        return Extent(size, self.stride * stride, self.start - pad * self.stride)

    def spread(self, kernel: int, stride: int, pad: int) -> Extent:
        """Behind a window that spreads each place of this axis, as a transposed convolution."""
        most = ceil(Fraction(kernel, stride))
        first = ceil(Fraction(pad - kernel + 1, stride))
        size = self.size + (most - 1) * self.stride
        return Extent(size, self.stride / stride, self.start + first * self.stride)

    def joined(self, other: Extent) -> Extent:
        """What either sees; the coarser stride is the one of both."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Extent(end - start, max(self.stride, other.stride), start)


Axes = tuple[Extent, ...]


@dataclass(frozen=True)
class View:
    """What a unit of a blob sees: an extent for each spatial axis, or all of the data (None)."""

    axes: Axes | None


WHOLE = View(None)


def receptive_fields(forward: Forward) -> tuple[View | None, ...]:
    """The view of each layer's first top, in the net's order; None where no data is seen.

    Data is what a data layer feeds with spatial axes: images, not labels.
    """
    found: list[View | None] = []
    for index, (layer, made_by) in enumerate(
        zip(forward.net.layers, feeders(forward.net), strict=True)
    ):
        bottoms = forward.bottoms.get(index)
        if bottoms is None or not layer.tops:
            found.append(None)
            continue
        top = forward.tops[index][0]
        found.append(_view(layer, bottoms, [found[i] for i in made_by], top))
    return tuple(found)


def _view(
    model: LayerModel, bottoms: Sequence[Tensor], views: Sequence[View | None], top: Tensor
) -> View | None:
    kind = layer_class(model)
    if issubclass(kind, DataLayer):
        return View((Extent(),) * (top.rank - 2)) if top.rank > 2 else None
    known = [view for view in views if view is not None]
    if not known or kind.is_loss or kind.is_metric:
        return None
    merged = _merged(known)
    if merged.axes is None or top.rank - 2 != len(merged.axes):
        return WHOLE
    axes = _behind(kind(model, Trace()), bottoms[0], top, merged.axes)
    return View(axes)


def _merged(views: Sequence[View]) -> View:
    merged = views[0]
    for view in views[1:]:
        if merged.axes is None or view.axes is None or len(merged.axes) != len(view.axes):
            return WHOLE
        pairs = zip(merged.axes, view.axes, strict=True)
        merged = View(tuple(one.joined(other) for one, other in pairs))
    return merged


def _behind(layer: Layer, x: Tensor, top: Tensor, axes: Axes) -> Axes | None:
    """The extents behind a layer; None where it lets every unit see everything."""
    for kind, behind in _BEHIND:
        if isinstance(layer, kind):
            return behind(layer, x, top, axes)
    return axes if x.shape[2:] == top.shape[2:] else None


def _windowed(layer: Windowed, x: Tensor, _top: Tensor, axes: Axes) -> Axes | None:
    geometry = layer.geometry(x)
    if geometry.axis != 1:
        return None
    each = zip(
        axes, geometry.kernel, geometry.strides, geometry.pads, geometry.dilations, strict=True
    )
    spreads = isinstance(layer, Deconvolution)
    found = []
    for axis, kernel, stride, pad, dilation in each:
        reach = dilation * (kernel - 1) + 1
        behind = axis.spread if spreads else axis.through
        found.append(behind(reach, stride, pad))
    return tuple(found)


def _pooled(layer: Pooling, x: Tensor, _top: Tensor, axes: Axes) -> Axes | None:
    if layer.params.global_pooling:
        return None
    sides = zip(axes, layer.sides(x), strict=True)
    return tuple(axis.through(one.kernel, one.stride, one.pad) for axis, one in sides)


def _normalized(layer: LRN, _x: Tensor, _top: Tensor, axes: Axes) -> Axes | None:
    if layer.params.norm_region == pb.LRNParameter.ACROSS_CHANNELS:
        return axes
    size = layer.params.local_size
    return tuple(axis.through(size, 1, size // 2) for axis in axes)


def _cut(layer: Crop, x: Tensor, _top: Tensor, axes: Axes) -> Axes | None:
    first, given = layer.axis(x, layer.params.axis), list(layer.params.offset)
    offsets = [0] * first + (given if len(given) > 1 else (given or [0]) * (x.rank - first))
    pairs = zip(axes, offsets[2:], strict=True)
    return tuple(replace(axis, start=axis.start + by * axis.stride) for axis, by in pairs)


def _resized(layer: Layer, x: Tensor, top: Tensor, axes: Axes) -> Axes | None:
    # Between two places there is something of both.
    reach = int(isinstance(layer, Interp))
    sizes = zip(axes, x.shape[2:], top.shape[2:], strict=True)
    return tuple(
        Extent(a.size + reach * a.stride, a.stride * Fraction(old, new), a.start)
        for a, old, new in sizes
    )


def _everything(_layer: Layer, _x: Tensor, _top: Tensor, _axes: Axes) -> Axes | None:
    return None


_BEHIND: tuple[tuple[type[Layer], Callable[[Any, Tensor, Tensor, Axes], Axes | None]], ...] = (
    (Windowed, _windowed),
    (Pooling, _pooled),
    (LRN, _normalized),
    (Crop, _cut),
    (Interp, _resized),
    (Upsample, _resized),
    (MVN, _everything),
)
