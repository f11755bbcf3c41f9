"""Deconvolution."""

from __future__ import annotations

from kdnet.graph import Tensor
from kdnet.layers.base import ANY, Weight, layer
from kdnet.layers.convolution import Convolution


@layer("Deconvolution", params="convolution_param", bottoms=(1, ANY), tops=(1, ANY))
class Deconvolution(Convolution):
    """Spread each position over a window: the transpose of a Convolution with these filters.

        y[n, o, stride·p + dilation·k − pad] += Σ_c w[c, o, k] · x[n, c, p];  + b[o]

    With ``group`` G, input channels in the g-th of G parts reach the output channels in the g-th.

    Shapes:
        x_i  (N..., C, X...)  bottom i, all alike; ``axis`` is C's
        w    (C, O/G, K...)   weight 0
        b    (O)              weight 1, unless ``bias_term`` is false
        y_i  (N..., O, Y...)  top i; Y = stride·(X − 1) + dilation·(K − 1) + 1 − 2·pad
    Parameters: as those of Convolution
    Gradient: from the op rules.
    Differs from Caffe: there are at most three spatial axes.
    Faults: as those of Convolution; pads that leave nothing.
    Source: BVLC/caffe deconv_layer, base_conv_layer; Long et al. 2015.
    """

    op_type = "ConvTranspose"

    def check(self, x: Tensor, *others: Tensor) -> None:
        """The parameters fit each other and the bottoms, which are alike."""
        self.check_channels(x, others)
        sizes = self._sizes(x)
        space = x.shape[self.geometry(x).axis + 1 :]
        text = f"the pads leave nothing of {space}, the space of {x.shape}: {sizes}"
        self.require_shape(min(sizes, default=1) > 0, bottom=0, say=text)

    def _sizes(self, x: Tensor) -> tuple[int, ...]:
        """The extents of the top's spatial axes."""
        found = self.geometry(x)
        each = zip(
            x.shape[found.axis + 1 :],
            found.kernel,
            found.strides,
            found.pads,
            found.dilations,
            strict=True,
        )
        return tuple(
            stride * (size - 1) + dilation * (k - 1) + 1 - 2 * pad
            for size, k, stride, pad, dilation in each
        )

    def weights(self, x: Tensor, *_others: Tensor) -> list[Weight]:
        """Filters and bias."""
        geometry, o = self.geometry(x), self.params.num_output
        shape = (x.shape[geometry.axis], o // self.params.group, *geometry.kernel)
        found = [Weight("weight", shape, self.params.weight_filler)]
        if self.params.bias_term:
            found.append(Weight("bias", (o,), self.params.bias_filler))
        return found
