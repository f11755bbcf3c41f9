"""Im2col."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.windows import Windowed, windows

# Along one axis: there may be a node for each.
MOST_PLACES = 4096


@layer("Im2col", params="convolution_param")
class Im2col(Windowed):
    """Write what the filters of a Convolution would meet side by side, as channels.

        y[n, c·K + k, p] = x[n, c, stride·p + dilation·k − pad],  0 in the padding

    with the places k of a window counted row by row, K of them.

    Shapes:
        x  (N..., C, X...)        bottom 0; ``axis`` is C's
        y  (N..., C · K, Y...)    top 0; Y = ⌊(X + 2·pad − dilation·(kernel − 1) − 1) / stride⌋ + 1
    Parameters: kernel_size ≥ 1 (required), stride ≥ 1 (1), pad (0) and dilation ≥ 1 (1), each once
        for all spatial axes or once for each; for two of them also kernel_h and _w, stride_h and
        _w, pad_h and _w; axis (1); engine and force_nd_im2col change nothing, and what only a
        Convolution needs (num_output, bias_term, group, fillers) is not read
    Gradient: from the op rules: a place's is the sum over the windows that met it.
    Differs from Caffe: nothing.
    Faults: kernel_size missing; a parameter for the wrong number of axes, or given in two ways; an
        input smaller than the kernel; more than 4096 places along an axis; no spatial axis.
    Source: BVLC/caffe im2col_layer.
    """

    def check(self, x: Tensor) -> None:
        """There are spatial axes, and a window fits into them."""
        axis = self.axis(x, self.params.axis)
        say = f"an axis after axis {axis}, the channels, wanted; the shape is {x.shape}"
        self.require_shape(x.rank > axis + 1, bottom=0, say=say)
        geometry = self.geometry(x)
        self.check_fit(x, geometry)
        most = max(geometry.kernel)
        say = f"a window of {most} places along an axis; at most {MOST_PLACES} are supported"
        at = "kernel_size" if self.params.kernel_size else "kernel_h"
        self.require(most <= MOST_PLACES, at=at, say=say)

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """Padding, then a Slice for each place of a window along each axis."""
        geometry = self.geometry(x)
        outer, channels = x.shape[: geometry.axis], x.shape[geometry.axis]
        borders = [*[0] * (geometry.axis + 1), *geometry.pads]
        seen = windows(g, g.pad(x, borders, borders), geometry)
        places = seen.shape[len(seen.shape) - len(geometry.kernel) :]
        return g.reshape(seen, (*outer, channels * prod(geometry.kernel), *places))
