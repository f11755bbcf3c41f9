"""ReLU6."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("ReLU6")
class ReLU6(Layer):
    """Keep elements between 0 and 6.

        y = min(max(x, 0), 6)

    Shapes:
        x  any   bottom 0
        y  as x  top 0
    Parameters: none
    Gradient: from the op rules: the top's where 0 < x ≤ 6, else 0.
    Differs from Caffe: the layer is of several forks, whose gradient is 0 at 6 itself too.
    Faults: none.
    Source: eric612/MobileNet-YOLO relu6_layer; Howard et al. 2017 (MobileNets).
    """

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """Two nodes, which ONNX Runtime makes one: Relu gives Caffe's gradient at 0."""
        return g.op("Clip", g.relu(x), None, g.like(6.0, x))
