"""DepthwiseConvolution and ConvolutionDepthwise: each channel has filters of its own."""

from __future__ import annotations

from kdnet.graph import Tensor
from kdnet.layers.base import ANY, layer
from kdnet.layers.convolution import Convolution


@layer("DepthwiseConvolution", params="convolution_param", bottoms=(1, ANY), tops=(1, ANY))
class DepthwiseConvolution(Convolution):
    """Correlate each channel with filters of its own.

        y[n, c·M + m, p] = b[c·M + m] + Σ_k w[c·M + m, k] · x[n, c, stride·p + dilation·k − pad]

    It is a Convolution whose ``group`` is the number of channels.

    Shapes:
        x_i  (N..., C, X...)     bottom i, all alike; ``axis`` is C's
        w    (M·C, 1, K...)      weight 0
        b    (M·C)               weight 1, unless ``bias_term`` is false
        y_i  (N..., M·C, Y...)   top i; Y as of Convolution
    Parameters: as those of Convolution; num_output M·C, a multiple of C; group (C)
    Gradient: from the op rules.
    Differs from Caffe: group need not be given. The fork's CUDA code takes no dilation.
    Faults: as those of Convolution; a group that is not the number of channels.
    Source: yonghenglh6/DepthwiseConvolution depthwise_conv_layer; Howard et al. 2017 (MobileNets).
    """

    def check(self, x: Tensor, *others: Tensor) -> None:
        """As a Convolution with a group for each channel."""
        channels = x.shape[self.axis(x, self.params.axis)]
        # A copy, since the message is that of the net.
        self.params = type(self.params).FromString(self.params.SerializeToString())
        self.complete(channels)
        super().check(x, *others)

    def complete(self, channels: int) -> None:
        """Set what follows from the number of channels."""
        given = self.params.group if self.params.HasField("group") else channels
        say = f"{given} is not the number of channels, {channels}"
        self.require(
            given == channels, at="group", say=say, help="leave it out, or use Convolution"
        )
        self.params.group = channels


@layer("ConvolutionDepthwise", params="convolution_param")
class ConvolutionDepthwise(DepthwiseConvolution):
    """Correlate each channel with a filter of its own.

        y[n, c, p] = b[c] + Σ_k w[c, k] · x[n, c, stride·p + dilation·k − pad]

    Shapes:
        x  (N..., C, X...)  bottom 0; ``axis`` is C's
        w  (C, 1, K...)     weight 0
        b  (C)              weight 1, unless ``bias_term`` is false
        y  (N..., C, Y...)  top 0; Y as of Convolution
    Parameters: as those of Convolution; num_output (C) and group (C) can only be C
    Gradient: from the op rules.
    Differs from Caffe: the fork does not look at num_output and group; here they must be right.
        It has two spatial axes; here there are one to three.
    Faults: as those of Convolution; a num_output or group that is not the number of channels.
    Source: the pull request BVLC/caffe 5665 conv_dw_layer, used by farmingyard/ShuffleNet.
    """

    def complete(self, channels: int) -> None:
        """One filter a channel."""
        given = self.params.num_output if self.params.HasField("num_output") else channels
        say = f"{given} is not the number of channels, {channels}"
        hint = "DepthwiseConvolution has several filters a channel"
        self.require(given == channels, at="num_output", say=say, help=hint)
        self.params.num_output = channels
        super().complete(channels)
