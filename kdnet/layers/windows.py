"""Sliding windows: their geometry, the parameters that state it, and what each of them holds."""

from __future__ import annotations

from dataclasses import dataclass

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer


@dataclass(frozen=True)
class Geometry:
    """A number for each spatial axis, which are the axes after the channels' (``axis``)."""

    axis: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


class Windowed(Layer):
    """A layer with the windows of a ConvolutionParameter."""

    def geometry(self, x: Tensor) -> Geometry:
        """The numbers for each spatial axis of a bottom."""
        axis = self.axis(x, self.params.axis)
        count = x.rank - axis - 1
        return Geometry(
            axis,
            self._each("kernel_size", "kernel", count, least=1),
            self._each("stride", "stride", count, least=1, default=1),
            self._each("pad", "pad", count, least=0, default=0),
            self._each("dilation", "", count, least=1, default=1),
        )

    def check_fit(self, x: Tensor, geometry: Geometry) -> None:
        """A window fits into the bottom and its padding."""
        space = x.shape[geometry.axis + 1 :]
        each = zip(space, geometry.kernel, geometry.pads, geometry.dilations, strict=True)
        fits = all(size + 2 * pad >= step * (k - 1) + 1 for size, k, pad, step in each)
        text = f"the kernel {geometry.kernel} does not fit into {space}, the space of {x.shape}"
        self.require_shape(fits, bottom=0, say=text)

    def _each(
        self, name: str, short: str, count: int, *, least: int, default: int = 0
    ) -> tuple[int, ...]:
        """A repeated parameter for each spatial axis, or its two fields ``short``_h and _w."""
        pair = (f"{short}_h", f"{short}_w") if short else ()
        if any(self.params.HasField(field) for field in pair):
            return self._height_and_width(name, pair, count, least)
        given = list(getattr(self.params, name))
        self.require(bool(given) or default >= least or not count, at=name, say="must be given")
        many = f"given {len(given)} times; once, or once for each of {count} spatial axes"
        self.require(len(given) in (0, 1, count), at=f"{name}.0", say=many)
        for index, value in enumerate(given):
            say = f"must be at least {least}"
            self.require(value >= least, at=f"{name}.{index}", say=say)
        return tuple(given if len(given) == count else (given or [default]) * count)

    def _height_and_width(
        self, name: str, pair: tuple[str, ...], count: int, least: int
    ) -> tuple[int, ...]:
        """The two fields of ``pair``, which say the same as the repeated ``name``."""
        first = next(field for field in pair if self.params.HasField(field))
        twice = f"one of two ways to say the same; {name} is given too"
        self.require(not getattr(self.params, name), at=first, say=twice)
        self.require(count == 2, at=first, say=f"of 2 spatial axes, but the bottom has {count}")
        for field in pair:
            given = self.params.HasField(field)
            say = f"must be at least {least}" if given else f"must be given, as {first} is"
            self.require(getattr(self.params, field) >= least, at=field, say=say)
        return tuple(getattr(self.params, field) for field in pair)


def windows(g: Emitter, x: Tensor, geometry: Geometry) -> Tensor:
    """(A..., X...) to (A..., K..., Y...): what each place of the window meets; no padding."""
    first = geometry.axis + 1
    for index, kernel in enumerate(geometry.kernel):
        x = _along(g, x, first + 2 * index, kernel, _step(geometry, index))
    count = len(geometry.kernel)
    outer = list(range(first))
    kernels = [first + 2 * index for index in range(count)]
    return g.transpose(x, [*outer, *kernels, *[place + 1 for place in kernels]])


def _step(geometry: Geometry, index: int) -> tuple[int, int]:
    return geometry.strides[index], geometry.dilations[index]


def _along(g: Emitter, x: Tensor, axis: int, kernel: int, step: tuple[int, int]) -> Tensor:
    """One axis of X places made two: kernel places, and Y positions of the window."""
    stride, dilation = step
    outer, size, inner = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    count = (size - dilation * (kernel - 1) - 1) // stride + 1
    if dilation == 1 and (count == 1 or stride == kernel):
        tiles = _cut(g, x, axis, (0, count * kernel, 1))
        order = list(range(x.rank + 1))
        order[axis : axis + 2] = axis + 1, axis
        return g.transpose(g.reshape(tiles, (*outer, count, kernel, *inner)), order)
    apart = g.reshape(x, (*outer, 1, size, *inner))
    starts = [dilation * place for place in range(kernel)]
    reach = (count - 1) * stride + 1
    met = [_cut(g, apart, axis + 1, (start, start + reach, stride)) for start in starts]
    return g.concat(met, axis)


def _cut(g: Emitter, x: Tensor, axis: int, cut: tuple[int, int, int]) -> Tensor:
    """From a start to an end in steps; no node for the whole axis."""
    start, end, stride = cut
    if cut == (0, x.shape[axis], 1):
        return x
    return g.slice(x, [axis], [start], [end], [stride])
