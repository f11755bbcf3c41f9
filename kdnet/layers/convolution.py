"""Convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, Weight, layer

# ONNX Runtime has kernels for one to three spatial axes.
SPATIAL_AXES = range(1, 4)


@dataclass(frozen=True)
class Geometry:
    """A number for each spatial axis, which are the axes after the channels' (``axis``)."""

    axis: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


@layer("Convolution", params="convolution_param", bottoms=(1, ANY), tops=(1, ANY))
class Convolution(Layer):
    """Correlate each item with a bank of filters.

        y[n, o, p] = b[o] + Σ_{c, k} w[o, c, k] · x[n, c, stride·p + dilation·k − pad]

    With ``group`` G, output channels in the g-th of G parts see the input channels in the g-th.

    Shapes:
        x_i  (N..., C, X...)  bottom i, all alike; ``axis`` is C's
        w    (O, C/G, K...)   weight 0
        b    (O)              weight 1, unless ``bias_term`` is false
        y_i  (N..., O, Y...)  top i; Y = ⌊(X + 2·pad − dilation·(K − 1) − 1) / stride⌋ + 1
    Parameters: num_output O ≥ 1 (required); kernel_size K ≥ 1 (required), stride ≥ 1 (1), pad (0)
        and dilation ≥ 1 (1), each once for all spatial axes or once for each; for two of them
        also kernel_h and _w, stride_h and _w, pad_h and _w; group G (1), a divisor of C and O;
        bias_term (true); axis (1); engine and force_nd_im2col change nothing
    Gradient: from the op rules.
    Differs from Caffe: there are one to three spatial axes.
    Faults: num_output or kernel missing; a parameter for the wrong number of axes, or given in
        two ways; a group that does not divide; an input smaller than the kernel; bottoms that
        differ; tops and bottoms that differ in number.
    Source: BVLC/caffe base_conv_layer, conv_layer.
    """

    op_type: ClassVar[str] = "Conv"

    def check(self, x: Tensor, *others: Tensor) -> None:
        """The parameters fit each other and the bottoms, which are alike."""
        self.check_channels(x, others)
        geometry = self.geometry(x)
        space = x.shape[geometry.axis + 1 :]
        each = zip(space, geometry.kernel, geometry.pads, geometry.dilations, strict=True)
        fits = all(size + 2 * pad >= step * (k - 1) + 1 for size, k, pad, step in each)
        text = f"the kernel {geometry.kernel} does not fit into {space}, the space of {x.shape}"
        self.require_shape(fits, bottom=0, say=text)

    def check_channels(self, x: Tensor, others: tuple[Tensor, ...]) -> None:
        """Bottoms and tops come in pairs, and the groups divide the channels."""
        self._check_alike(x, others)
        self.require(self.params.num_output > 0, at="num_output", say="must be positive")
        geometry = self.geometry(x)
        channels = x.shape[geometry.axis]
        for name, count in (("bottom's channels", channels), ("output", self.params.num_output)):
            self.require(
                self.params.group > 0 and count % self.params.group == 0,
                at="group",
                say=f"{self.params.group} does not divide the {name}, {count}",
            )

    def _check_alike(self, x: Tensor, others: tuple[Tensor, ...]) -> None:
        bottoms, tops = self.model.bottoms, self.model.tops
        if len(bottoms) != len(tops):
            text = f"one top for each bottom wanted: {len(bottoms)} bottoms, {len(tops)} tops"
            self.fail("top-count", text, self.model.source.span(("top", 0)))
        for index, other in enumerate(others, start=1):
            text = f'bottom "{bottoms[index]}" has shape {other.shape}, but "{bottoms[0]}" has'
            alike = other.shape == x.shape
            self.require_shape(alike, bottom=index, say=f"{text} {x.shape}")

    def geometry(self, x: Tensor) -> Geometry:
        """The numbers for each spatial axis of a bottom."""
        axis = self.axis(x, self.params.axis)
        count = x.rank - axis - 1
        say = f"one to three axes wanted after axis {axis}, the channels, not {count} of {x.shape}"
        self.require_shape(count in SPATIAL_AXES, bottom=0, say=say)
        return Geometry(
            axis,
            self._each("kernel_size", "kernel", count, least=1),
            self._each("stride", "stride", count, least=1, default=1),
            self._each("pad", "pad", count, least=0, default=0),
            self._each("dilation", "", count, least=1, default=1),
        )

    def _each(
        self, name: str, short: str, count: int, *, least: int, default: int = 0
    ) -> tuple[int, ...]:
        """A repeated parameter for each spatial axis, or its two fields ``short``_h and _w."""
        pair = (f"{short}_h", f"{short}_w") if short else ()
        if any(self.params.HasField(field) for field in pair):
            return self._height_and_width(name, pair, count, least)
        given = list(getattr(self.params, name))
        self.require(bool(given) or default >= least, at=name, say="must be given")
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

    def weights(self, x: Tensor, *_others: Tensor) -> list[Weight]:
        """Filters and bias."""
        geometry, o = self.geometry(x), self.params.num_output
        shape = (o, x.shape[geometry.axis] // self.params.group, *geometry.kernel)
        found = [Weight("weight", shape, self.params.weight_filler)]
        if self.params.bias_term:
            found.append(Weight("bias", (o,), self.params.bias_filler))
        return found

    def emit(self, g: Emitter, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One node for each bottom."""
        count = len(self.model.bottoms)
        return tuple(self._emit_one(g, x, inputs[count:]) for x in inputs[:count])

    def _emit_one(self, g: Emitter, x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        geometry = self.geometry(x)
        outer = x.shape[: geometry.axis]
        items = g.reshape(x, (prod(outer), *x.shape[geometry.axis :]))
        y = g.op(
            self.op_type,
            items,
            *weights,
            strides=list(geometry.strides),
            pads=[*geometry.pads, *geometry.pads],
            dilations=list(geometry.dilations),
            group=self.params.group,
        )
        return g.reshape(y, (*outer, *y.shape[1:]))
