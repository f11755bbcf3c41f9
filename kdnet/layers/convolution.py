"""Convolution."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Weight, layer
from kdnet.layers.windows import Windowed

# ONNX Runtime has kernels for one to three; without any, there is one of a single place.
MOST_SPATIAL_AXES = 3


@layer("Convolution", params="convolution_param", bottoms=(1, ANY), tops=(1, ANY))
class Convolution(Windowed):
    """Correlate each item with a bank of filters.

        y[n, o, p] = b[o] + Σ_{c, k} w[o, c, k] · x[n, c, stride·p + dilation·k − pad]

    With ``group`` G, output channels in the g-th of G parts see the input channels in the g-th.

    Shapes:
        x_i  (N..., C, X...)  bottom i, all alike; ``axis`` is C's
        w    (O, C/G, K...)   weight 0
        b    (O)              weight 1, unless ``bias_term`` is false
        y_i  (N..., O, Y...)  top i; Y = ⌊(X + 2·pad − dilation·(K − 1) − 1) / stride⌋ + 1
    Parameters: num_output O ≥ 1 (required); kernel_size K ≥ 1 (required, unless there is no
        spatial axis), stride ≥ 1 (1), pad (0) and dilation ≥ 1 (1), each once for all spatial axes
        or once for each; for two of them also kernel_h and _w, stride_h and _w, pad_h and _w;
        group G (1), a divisor of C and O; bias_term (true); weight_filler; bias_filler; axis (1);
        engine and force_nd_im2col change nothing
    Gradient: from the op rules.
    Differs from Caffe: there are at most three spatial axes.
    Faults: num_output or kernel missing; a parameter for the wrong number of axes, or given in
        two ways; a group that does not divide; an input smaller than the kernel; bottoms that
        differ; tops and bottoms that differ in number.
    Source: BVLC/caffe base_conv_layer, conv_layer.
    """

    op_type: ClassVar[str] = "Conv"

    def check(self, x: Tensor, *others: Tensor) -> None:
        """The parameters fit each other and the bottoms, which are alike."""
        self.check_channels(x, others)
        self.check_fit(x, self.geometry(x))

    def check_channels(self, x: Tensor, others: tuple[Tensor, ...]) -> None:
        """Bottoms and tops come in pairs, and the groups divide the channels."""
        self._check_alike(x, others)
        self.require(self.params.num_output > 0, at="num_output", say="must be positive")
        geometry = self.geometry(x)
        channels, count = x.shape[geometry.axis], len(geometry.kernel)
        say = f"at most three axes wanted after axis {geometry.axis}, the channels, not {count}"
        self.require_shape(count <= MOST_SPATIAL_AXES, bottom=0, say=f"{say} of {x.shape}")
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
        outer, inner = x.shape[: geometry.axis], x.shape[geometry.axis :]
        filters, *bias = weights
        # Without a spatial axis there is one of a single place.
        lone = not geometry.kernel
        y = g.op(
            self.op_type,
            g.reshape(x, (prod(outer), *inner, *[1] * lone)),
            g.reshape(filters, (*filters.shape, *[1] * lone)),
            *bias,
            strides=list(geometry.strides) or [1],
            pads=[*geometry.pads, *geometry.pads] or [0, 0],
            dilations=list(geometry.dilations) or [1],
            group=self.params.group,
        )
        return g.reshape(y, (*outer, *(y.shape[1:-1] if lone else y.shape[1:])))
