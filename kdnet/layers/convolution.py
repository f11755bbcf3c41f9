"""Convolution."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer
from kdnet.layers.geometry import pair_of


@layer("Convolution", params="convolution_param")
class Convolution(Layer):
    """Correlate each image with a bank of kernels.

        y[n, o, p] = Σ_c Σ_k x[n, c, stride·p + dilation·k − pad] · w[o, c, k] + b[o]

    Shapes:
        x  (N, C, H, W)        bottom 0
        w  (O, C/G, KH, KW)    weight 0
        b  (O)                 weight 1, unless ``bias_term`` is false
        y  (N, O, OH, OW)      top 0; OH = ⌊(H + 2·pad − dilation·(KH − 1) − 1)/stride⌋ + 1
    Parameters: num_output O ≥ 1 (required); kernel_size or kernel_h and kernel_w (required);
        pad (0); stride (1); dilation (1); group G (1); bias_term (true); engine is ignored
    Gradient: from the op rules.
    Differs from Caffe: two spatial axes only; one bottom only.
    Faults: a missing kernel size, a kernel larger than its padded input, channels or num_output
        that G does not divide.
    Source: BVLC/caffe base_conv_layer.
    """

    def check(self, x: Tensor) -> None:
        """Sizes are there and fit."""
        p = self.params
        self.require_shape(x.rank == 4, bottom=0, say=f"takes 4 axes (N, C, H, W), not {x.shape}")
        self.require(p.axis in (1, -3), at="axis", say="only 1 is supported")
        self.require(p.num_output > 0, at="num_output", say="must be positive")
        self.require(
            x.shape[1] % p.group == 0,
            at="group",
            say=f"{p.group} does not divide the bottom's {x.shape[1]} channels",
        )
        self.require(
            p.num_output % p.group == 0,
            at="num_output",
            say=f"{p.num_output} is not a multiple of group {p.group}",
        )
        kernel, pad, dilation = (
            self.kernel(),
            pair_of(self, "pad", 0),
            pair_of(self, "dilation", 1),
        )
        for axis in (0, 1):
            reach, size = (
                dilation[axis] * (kernel[axis] - 1) + 1,
                x.shape[2 + axis] + 2 * pad[axis],
            )
            self.require_shape(
                reach <= size,
                bottom=0,
                say=f"a kernel that reaches over {reach} places does not fit a padded bottom "
                f"of {size}, {x.shape}",
            )

    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return pair_of(self, "kernel", None)

    def weights(self, x: Tensor) -> list[Weight]:
        """Kernels and bias."""
        o = self.params.num_output
        shape = (o, x.shape[1] // self.params.group, *self.kernel())
        found = [Weight("weight", shape, self.params.weight_filler)]
        return [*found, Weight("bias", (o,), self.params.bias_filler)][: 1 + self.params.bias_term]

    def emit(self, g: Emitter, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """One Conv."""
        pad = pair_of(self, "pad", 0)
        inputs = (x, w) if b is None else (x, w, b)
        return g.op(
            "Conv",
            *inputs,
            kernel_shape=list(self.kernel()),
            pads=[*pad, *pad],
            strides=list(pair_of(self, "stride", 1)),
            dilations=list(pair_of(self, "dilation", 1)),
            group=self.params.group,
        )
