"""Python: a layer whose code is the user's, run on the host between parts of the graph."""

from __future__ import annotations

from dataclasses import dataclass

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, layer
from kdnet.layers.python.hosted import HostedLayer, python_is_allowed


@dataclass(frozen=True)
class Hosted:
    """A Python layer of a traced net: what it reads, and the inputs of the graph that it makes."""

    layer: HostedLayer
    bottoms: tuple[Tensor, ...]
    tops: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.model.name


@layer("Python", params="python_param", bottoms=(0, ANY), tops=(0, ANY))
class Python(Layer):
    """Run a class of the user's own, as pycaffe does.

        y = forward(x),  ∂L/∂x = backward(∂L/∂y)

    The net is split there: what the layer reads is computed, its code runs on the host, and what
    it makes is an input of the rest. That costs a copy each way, and on the way back the part
    after the layer is computed twice. A layer without bottoms, a data layer, splits nothing.

    Shapes:
        x  any number of bottoms, of any shape
        y  any number of tops, of the shapes that its ``reshape`` gives; they may not change later
    Parameters: module, the Python module (sought beside the net, then on PYTHONPATH); layer, the
        class; param_str (""), handed to it; share_in_parallel is ignored: one device trains.
    Gradient: the layer's ``backward``, called only where a trained weight lies before it.
    Differs from Caffe: it runs only with --allow-python; a changed shape, or weights (``blobs``)
        of its own, are refused; its arrays are float32 copies.
    Faults: it is not allowed; no such module or class; the code raises; weights of its own.
    Source: BVLC/caffe python_layer.
    """

    def check(self, *_bottoms: Tensor) -> None:
        """Both names are needed."""
        for name in ("module", "layer"):
            self.require(bool(getattr(self.params, name)), at=name, say="must be given")

    def emit(self, g: Emitter, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Declare an input of the step for each top."""
        if not python_is_allowed():
            text = "it runs code of its own, which nobody allowed"
            hint = (
                "kdnet train and kdnet test run it with --allow-python; in one ONNX graph it "
                "cannot be"
            )
            self.fail("python-not-allowed", text, self.span(), hint)
        hosted = HostedLayer(self.model, [bottom.shape for bottom in bottoms])
        tops = tuple(
            g.input(f"python/{self.model.name}/{index}", shape)
            for index, shape in enumerate(hosted.shapes)
        )
        self.trace.hosted.append(Hosted(hosted, bottoms, tops))
        self.trace.made_on_host.update(tops)
        return tops
