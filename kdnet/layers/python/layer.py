"""Python: a layer whose code is the user's, run on the host between parts of the graph."""

from __future__ import annotations

from dataclasses import dataclass

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, Layer, Stored, Weight, layer
from kdnet.layers.python.allowance import current_allowance
from kdnet.layers.python.blob import Blob
from kdnet.layers.python.hosted import HostedLayer, hosted_layer


@dataclass(frozen=True)
class Hosted:
    """A Python layer of a traced net: what it reads, and the inputs of the graph that it makes.

    ``blobs`` are its weights.
    """

    layer: HostedLayer
    bottoms: tuple[Tensor, ...]
    blobs: tuple[Tensor, ...]
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

    What its ``setup`` adds to ``self.blobs`` are weights as any other: ``param`` says how they are
    trained, a file fills them, a name shares them. With ``lr_mult: 0`` the code may change them
    itself in training, and what it wrote is saved.

    Shapes:
        x  any number of bottoms, of any shape
        w  as many weights as it adds, of the shapes that it says
        y  any number of tops, of the shapes that its ``reshape`` gives; they may not change later
    Parameters: module, the Python module (sought beside the net, then on PYTHONPATH); layer, the
        class; param_str (""), handed to it; share_in_parallel is ignored: one device trains.
    Gradient: the layer's ``backward``, called only where a trained weight lies before it or is
        its own.
    Differs from Caffe: in commands it runs only with --allow-python; there a changed shape is
        refused; its arrays are float32 copies, and a weight's ``diff`` is 0 before each
        ``backward``.
    Faults: it is not allowed; no such module or class; the code raises.
    Source: BVLC/caffe python_layer.
    """

    def check(self, *_bottoms: Tensor) -> None:
        """Both names are needed, and leave to run what they name."""
        for name in ("module", "layer"):
            self.require(bool(getattr(self.params, name)), at=name, say="must be given")
        if current_allowance() is None:
            text = "it runs code of its own, which nobody allowed"
            hint = (
                "kdnet train, test, time, check and summarize run it with --allow-python; in one "
                "ONNX graph it cannot be"
            )
            self.fail("python-not-allowed", text, self.span(), hint)

    def weights(self, *bottoms: Tensor) -> list[Weight]:
        """What the code's ``setup`` adds to its ``blobs``; they start as it leaves them."""
        self._hosted = hosted_layer(self.model, [bottom.shape for bottom in bottoms])
        return [
            Weight(f"blob_{index}", blob.shape, state=self._is_state(index), stored=stored(blob))
            for index, blob in enumerate(self._hosted.blobs)
        ]

    def _is_state(self, index: int) -> bool:
        """Whether the code may change a weight for good: in training, what no solver trains."""
        return self.train and self.param(index).lr_mult == 0

    def emit(self, g: Emitter, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Declare an input of the step for each top."""
        hosted, count = self._hosted, len(self.model.bottoms)
        bottoms, blobs = inputs[:count], inputs[count:]
        for index, blob in enumerate(blobs):
            if self._is_state(index):
                self.update(blob, g.op("Identity", blob))
        tops = tuple(
            g.input(f"python/{self.model.name}/{index}", shape)
            for index, shape in enumerate(hosted.shapes)
        )
        self.trace.hosted.append(Hosted(hosted, bottoms, blobs, tops))
        self.trace.made_on_host.update(tops)
        return tops


def stored(blob: Blob) -> Stored:
    """A weight's values as its layer's setup left them."""
    values = blob.data.copy()
    return Stored("", lambda: values)
